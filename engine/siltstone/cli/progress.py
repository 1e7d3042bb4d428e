"""Progress on standard error, where that is a terminal; nothing at all elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from siltstone.cli.sizes import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from siltstone.shard.replaying import ReplayProgress

__all__ = ["Meter", "reading_progress", "replay_progress"]


class Meter(Protocol):
    """Shows how far the reading is."""

    def __call__(self, *, size: int, files: int, blocks: int) -> None:
        """Show what was done so far [bytes, files, blocks]."""


@contextmanager
def replay_progress(what: str) -> Iterator[Callable[[ReplayProgress], None] | None]:
    """Give what `progress` of open and verify wants; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(progress: ReplayProgress) -> None:
            bar.update(task, completed=progress.bytes_done, total=progress.bytes_total or None)

        yield show


@contextmanager
def reading_progress(total: int | None) -> Iterator[Meter]:
    """Give a meter for reading `total` bytes; None where how much there is to read is not known."""
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn() if total is None else BarColumn(bar_width=16),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
    )
    began = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5) as bar:
        task = bar.add_task("", total=total, done="")

        def show(*, size: int, files: int, blocks: int) -> None:
            seconds = time.perf_counter() - began
            rate = f"{format_bytes(size / seconds)}/s" if seconds > 0 else ""
            counts = f"files {format_count(files)}  blocks {format_count(blocks)}"
            bar.update(task, completed=size, done=f"{counts}  {format_bytes(size)}  {rate}")

        yield show


def _show_nothing(*, size: int, files: int, blocks: int) -> None:
    """Take what there would be to show."""
