"""Real media for the backends: loop devices, zram, a small disk."""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from real_media import MIB, loop_over, mounted, need_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZRAM = Path("/sys/class/zram-control")


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Make loop devices over fresh images: size [bytes], sector [bytes] and the options of `loop_over`."""
    with contextlib.ExitStack() as stack:
        count = 0

        def make(size: int = 8 * MIB, *, folder: Path = tmp_path, **options: object) -> str:
            nonlocal count
            image = folder / f"image{count}"
            count += 1
            with image.open("xb") as file:
                file.truncate(size)
            return stack.enter_context(loop_over(image, **options))  # type: ignore[arg-type]

        yield make


def tell(control: Path, text: str) -> None:
    """Write to a control file of the kernel, which is busy while udev looks at the device."""
    deadline = time.monotonic() + 10
    while True:
        try:
            control.write_text(text)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@pytest.fixture
def zram() -> Iterator[str]:
    """A zram device of 8 MiB of its own."""
    need_root()
    if not (ZRAM / "hot_add").exists():
        pytest.skip("the kernel has no zram")
    number = (ZRAM / "hot_add").read_text().strip()
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(str(8 * MIB))
        yield f"/dev/zram{number}"
    finally:
        tell(Path(f"/sys/block/zram{number}/reset"), "1")
        tell(ZRAM / "hot_remove", number)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=1m") as point:
        yield point
