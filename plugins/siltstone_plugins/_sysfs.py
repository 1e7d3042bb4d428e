"""What the kernel says of a block device: its geometry, and who uses it."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from siltstone_plugins._mounts import mounts, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator

# Requests of the block layer, as on x86, Arm, RISC-V and s390.
_LOGICAL_SIZE: Final = 0x1268  # BLKSSZGET
_PHYSICAL_SIZE: Final = 0x127B  # BLKPBSZGET
_SIZE: Final = 0x80081272  # BLKGETSIZE64
_READ_ONLY: Final = 0x125E  # BLKROGET
_DISCARD: Final = 0x1277  # BLKDISCARD

_NUMBER = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Geometry:
    """Sizes of a device [bytes]. A discard granularity of 0: it takes none."""

    size: int
    logical_sector: int
    physical_sector: int
    read_only: bool
    discard_granularity: int
    discard_offset: int


def geometry(descriptor: int) -> Geometry:
    """Ask the kernel for the geometry of an open device."""
    device = Device(os.fstat(descriptor).st_rdev)
    discards = device.queue_number("discard_max_bytes") > 0
    granularity = device.queue_number("discard_granularity") if discards else 0
    return Geometry(
        size=size(descriptor),
        logical_sector=_ask(descriptor, _LOGICAL_SIZE, 4),
        physical_sector=_ask(descriptor, _PHYSICAL_SIZE, 4),
        read_only=_ask(descriptor, _READ_ONLY, 4) != 0,
        discard_granularity=granularity,
        discard_offset=device.number("discard_alignment") % granularity if granularity else 0,
    )


def size(descriptor: int) -> int:
    """Return the bytes that an open device has now."""
    return _ask(descriptor, _SIZE, 8)


def discard(descriptor: int, offset: int, length: int) -> None:
    """Tell an open device that a range is not needed; OSError where it refuses."""
    fcntl.ioctl(descriptor, _DISCARD, offset.to_bytes(8, _ORDER) + length.to_bytes(8, _ORDER))


_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"


def _ask(descriptor: int, request: int, width: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, request, bytes(width)), _ORDER)


class Device:
    """A block device by its number, as sysfs shows it; where sysfs is missing, nothing is known of it."""

    def __init__(self, rdev: int) -> None:
        self.rdev = rdev
        self._folder = Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")

    def number(self, name: str) -> int:
        """Return a number of the device itself, or 0."""
        return _number(self._folder / name)

    def queue_number(self, name: str) -> int:
        """Return a number of its request queue, or 0; a partition has that of its disk."""
        folder = self._folder.resolve()
        return _number((folder.parent if (folder / "partition").exists() else folder) / "queue" / name)

    def partitions(self) -> list[Device]:
        """Return the partitions that the kernel has made of it."""
        found = (entry / "dev" for entry in _entries(self._folder) if _is_partition(entry))
        return [Device(_device_number(entry)) for entry in found]

    def holders(self) -> list[str]:
        """Name the devices that are built on it or on a partition of it: md, device mapper, bcache."""
        folders = [self._folder, *(entry for entry in _entries(self._folder) if _is_partition(entry))]
        return sorted({holder.name for folder in folders for holder in _entries(folder / "holders")})

    def family(self) -> set[int]:
        """Return its number and those of its partitions."""
        return {self.rdev, *(partition.rdev for partition in self.partitions())}

    def mount_points(self) -> list[str]:
        """Name where it or a partition of it is mounted in this namespace."""
        family = self.family()
        return [
            mount.point
            for mount in mounts()
            # btrfs reports a device number of its own; the source says which device it is on.
            if mount.device in family or (mount.source.startswith("/dev/") and _rdev(mount.source) in family)
        ]

    def swaps(self) -> list[str]:
        """Name the swap spaces in use on it or on a partition of it."""
        family = self.family()
        return [name for name in _swap_names() if _rdev(name) in family]


def _swap_names() -> Iterator[str]:
    try:
        lines = Path("/proc/swaps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines[1:]:
        yield unescape(line.split()[0])


def _rdev(path: str) -> int:
    try:
        return Path(path).stat().st_rdev
    except OSError:
        return 0


def _number(path: Path) -> int:
    try:
        return max(0, int(path.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return 0


def _device_number(path: Path) -> int:
    try:
        match = _NUMBER.match(path.read_text(encoding="ascii"))
    except OSError:
        match = None
    return os.makedev(int(match[1]), int(match[2])) if match else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_partition(entry: Path) -> bool:
    return (entry / "partition").exists() and (entry / "dev").exists()
