"""`siltstone dedup`: how much of what is read the store has already, and put the rest into it."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

import siltstone
from siltstone.cli.cutting import BLOCK_SIZE_MAX, ContentCutter, FixedCutter
from siltstone.cli.exits import EXIT_UNREADABLE
from siltstone.cli.feeding import Feeder
from siltstone.cli.hashing import HashPool
from siltstone.cli.hashing_process import HASHES
from siltstone.cli.interrupts import Interrupts
from siltstone.cli.progress import reading_progress, replay_progress
from siltstone.cli.reading import Load, Reader
from siltstone.cli.report import Report
from siltstone.cli.sizes import ByteCount
from siltstone.cli.walking import Unreadable, Walker, identify
from siltstone.format.constants import SECTOR_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone import Store
    from siltstone.cli.cutting import Cutter
    from siltstone.cli.progress import Meter
    from siltstone.cli.walking import Identity
    from siltstone.shard.replaying import ReplayProgress

__all__ = ["dedup"]

_BLOCK_SIZE_DEFAULT = 4096


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--store",
    metavar="FILE",
    help="Store to ask and to feed; made if there is none. Without it, a temporary one.",
)
@click.option(
    "--block-size",
    metavar="BYTES",
    type=ByteCount(SECTOR_SIZE, BLOCK_SIZE_MAX, SECTOR_SIZE),
    help="Cut into blocks of this size; 4096 unless told, 4k and 1MiB are understood.",
)
@click.option(
    "--chunking",
    type=click.Choice(["fixed", "fastcdc"]),
    default="fixed",
    help="fastcdc: cut where the content says, 16 KiB on average.",
)
@click.option(
    "--hash",
    "hash_name",
    type=click.Choice(HASHES),
    default="sha256",
    show_default=True,
    help="Content hash.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def dedup(
    paths: tuple[str, ...],
    store: str | None,
    block_size: int | None,
    chunking: str,
    hash_name: str,
    as_json: bool,
) -> int:
    """Find out what of PATH... is there twice, or in the store already.

    Reads files, folders, disk images and block devices, cuts them into blocks, asks the store about the hash
    of each block, and puts those in that it does not have. In folders, symbolic links are not followed and
    special files not read; a file with several hard links is read once.

    Exit status: 0 all was read, 1 some files could not be read, 2 wrong usage or a store that does not
    work, 130 after Ctrl-C; what was read until then is kept.
    """
    if chunking == "fastcdc" and block_size is not None:
        raise click.UsageError("--block-size and --chunking fastcdc exclude each other")
    cutter: Cutter = (
        ContentCutter() if chunking == "fastcdc" else FixedCutter(block_size or _BLOCK_SIZE_DEFAULT)
    )
    report = Report(
        chunking=chunking,
        block_size=None if chunking == "fastcdc" else cutter.size_max,
        hash=hash_name,
        store=store,
    )
    _raise_descriptor_limit()
    with Interrupts() as interrupts:
        with ExitStack() as stack:
            target = store if store is not None else _temporary_store(stack)
            with replay_progress("opening the store") as progress:
                watch = _stopping(progress, interrupts)
                opened = stack.enter_context(siltstone.open(target, progress=watch))
            run = _Run(opened, target, paths, cutter, report, interrupts)
            run.read()
        report.show(as_json)
        if interrupts.received:
            _say(f"interrupted; {_what_is_kept(report)}")
            return interrupts.exit_status
    return EXIT_UNREADABLE if report.tally.unreadable else 0


def _stopping(
    progress: Callable[[ReplayProgress], None] | None, interrupts: Interrupts
) -> Callable[[ReplayProgress], None]:
    """Let a replay be interrupted between two of its steps; it can be repeated."""

    def watch(step: ReplayProgress) -> None:
        if interrupts.received:
            raise KeyboardInterrupt
        if progress is not None:
            progress(step)

    return watch


class _Run:
    """One run: the walk, the reader, the hashing processes and the feeder, tied together."""

    def __init__(
        self,
        store: Store,
        target: str,
        paths: tuple[str, ...],
        cutter: Cutter,
        report: Report,
        interrupts: Interrupts,
    ) -> None:
        spared = _identities_of(store, target)
        for path in paths:
            if _identity(path) in spared:
                raise click.UsageError(f"{path} is the store itself")
        self._store = store
        self._feeder = Feeder(store, report.hash)
        self._walker = Walker(paths, report.tally, spared)
        self._paths = paths
        self._cutter = cutter
        self._report = report
        self._interrupts = interrupts

    def read(self) -> None:
        """Read everything, or until interrupted; on return all of it that was taken is durable."""
        began = time.perf_counter()
        with HashPool(self._report.hash, block_size_max=self._cutter.size_max) as pool:
            reader = Reader(self._walker.walk(), pool, self._cutter, self._report.tally)
            try:
                with reading_progress(_total_size(self._paths)) as meter:
                    self._take_all(reader, pool, meter)
            finally:
                reader.stop()
        self._feeder.finish()
        self._report.take_run(self._feeder, time.perf_counter() - began, bool(self._interrupts.received))
        self._report.take_store(self._store.info(), self._feeder.records)

    def _take_all(self, reader: Reader, pool: HashPool, meter: Meter) -> None:
        size = blocks = 0
        for event in reader.events():
            if self._interrupts.received:
                return
            if isinstance(event, Load):
                digests = pool.collect(event.slot, len(event.lengths))
                self._feeder.add(digests, event.lengths, event.first_logical_sects)
                reader.release(event.slot)
                size += event.size
                blocks += len(event.lengths)
                meter(size=size, files=self._report.tally.files, blocks=blocks)
            elif isinstance(event, Unreadable):
                _say(f"{event.name}: {event.reason}")
            else:
                _say(event.text)


def _temporary_store(stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="siltstone-"))
    return str(Path(folder) / "temporary.silt")


def _identity(path: str) -> Identity | None:
    try:
        return identify(Path(path).stat())
    except (OSError, ValueError):
        return None


def _identities_of(store: Store, target: str) -> frozenset[Identity]:
    """What the store is on a file system: a file or a device, by path or by the rest of a URL."""
    names = {name for url in (target, store.info().url) for name in (url, url.partition(":")[2]) if name}
    return frozenset(identity for identity in map(_identity, names) if identity is not None)


def _total_size(paths: tuple[str, ...]) -> int | None:
    """How much there is to read where that is cheap to know: files only [bytes]."""
    total = 0
    for path in paths:
        if not Path(path).is_file():
            return None
        with suppress(OSError):
            total += Path(path).stat().st_size
    return total


def _raise_descriptor_limit() -> None:
    # A walk has a descriptor or two open for each folder on its way down.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _what_is_kept(report: Report) -> str:
    if report.store is None:
        return "nothing is kept, since no --store was given"
    return (
        f"{report.blocks:,} blocks were taken, their {report.unique:,} new records are kept in {report.store}"
    )


def _say(text: str) -> None:
    """Tell people something. Where nobody reads it, the work goes on all the same."""
    with suppress(OSError):
        click.echo(f"siltstone: {text}", file=sys.stderr)
