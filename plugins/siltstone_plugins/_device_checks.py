"""What keeps a device that is not ours from being written: who uses it, and what it holds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import xxhash

from siltstone.errors import AlreadyExistsError, RefusedDeviceError, SiltstoneError
from siltstone.format.constants import (
    EXTENTS_OFFSET,
    SLOT_OFFSETS,
    SUPERBLOCK_HEADER_SIZE,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_PAYLOAD_MAX,
)
from siltstone_plugins._blkid import probe
from siltstone_plugins._failures import in_use
from siltstone_plugins._holders import device_holder
from siltstone_plugins._options import FORCEABLE
from siltstone_plugins._signatures import REACH, Edges, signatures

if TYPE_CHECKING:
    from siltstone.plugin import BackendOptions
    from siltstone.volume.backend import Backend
    from siltstone_plugins._sysfs import Device

#: magic, version, length of the payload, sequence, checksum of what stands before it and the payload
_HEADER: Final = struct.Struct(">8sIIQQ")
_CHECKED: Final = 24

assert _HEADER.size == SUPERBLOCK_HEADER_SIZE
assert REACH >= EXTENTS_OFFSET


def check_use(url: str, device: Device, force: frozenset[str]) -> None:
    """Raise RefusedDeviceError for a device that the kernel uses, unless the reason is in `force`."""
    for reason, what in _uses(device):
        if reason not in force:
            raise _refused(url, reason, what)
    if device.number("ro"):
        raise RefusedDeviceError(f"{url} refused: the device is read-only", url=url, reason="read_only")


def explain_busy(url: str, device: Device) -> SiltstoneError:
    """Return the error for a device that the kernel gave exclusively to somebody else."""
    for reason, what in _uses(device):
        if reason != "partitioned":
            message = f"{url} refused: {what}; the kernel itself forbids to write it then"
            return RefusedDeviceError(message, url=url, reason=reason)
    return in_use(url, device_holder(device.rdev))


def _uses(device: Device) -> list[tuple[str, str]]:
    """Return (reason, what is so) for each use that the kernel makes of a device."""
    found = []
    if points := device.mount_points():
        found.append(("mounted", f"it, or a partition of it, is mounted at {', '.join(points)}"))
    if swaps := device.swaps():
        found.append(("swap", f"{', '.join(swaps)} is swap space in use"))
    if holders := device.holders():
        found.append(("held", f"{', '.join(holders)} is built on it"))
    if partitions := device.partitions():
        found.append(("partitioned", f"it has {len(partitions)} partitions"))
    return found


def _refused(url: str, reason: str, what: str) -> RefusedDeviceError:
    assert reason in FORCEABLE
    return RefusedDeviceError(
        f'{url} refused: {what}; nothing was written; name "{reason}" in force to write it all the same',
        url=url,
        reason=reason,
    )


def check_content(backend: Backend, path: str, options: BackendOptions) -> None:
    """Raise RefusedDeviceError unless an open device is ours, empty, or forced. Reads only.

    :param backend: the device, held exclusively by this process
    :param path: where `blkid` finds it
    """
    reach = min(backend.size, REACH) // backend.alignment * backend.alignment
    edges = Edges(
        backend.size,
        bytes(backend.read(0, reach, fresh=True)),
        bytes(backend.read(backend.size - reach, reach, fresh=True)),
    )
    slots = [slot for offset in SLOT_OFFSETS if (slot := _slot_at(edges, offset)) is not None]
    forced = False
    for found in signatures(edges):
        # What lies in the checksummed bytes of a slot is ours and looks foreign by chance. What lies behind
        # the slots, at the end of a device of ours, is left over from before it was formatted, or data.
        if any(found.offset in slot.span for slot in slots) or (slots and found.offset >= EXTENTS_OFFSET):
            continue
        if found.reason not in options.force:
            what = f"{found.name} has its signature at byte {found.offset}"
            raise _refused(backend.url, found.reason, what)
        forced = True
    if slots:
        if options.create and options.exclusive:
            message = f"{backend.url} holds a volume already; it was not touched"
            raise AlreadyExistsError(message, url=backend.url)
        return
    known = probe(path)
    if known is not None:
        if known[1] not in options.force:
            raise _refused(backend.url, known[1], f"blkid finds {known[0]}")
        forced = True
    # Who forced a kind of content by name knows that there are bytes.
    if options.create and not forced and "data" not in options.force and not _is_blank(edges.head):
        what = f"its first {len(edges.head)} bytes are neither all zero nor all 0xFF, nor a volume"
        raise _refused(backend.url, "data", what)


@dataclass(frozen=True)
class _Slot:
    """A superblock slot of ours.

    :param span: offsets of the bytes that its checksum covers; none where the checksum is wrong
    """

    span: range


def _slot_at(edges: Edges, offset: int) -> _Slot | None:
    """Return the slot at `offset` if its header is that of a Siltstone superblock, whole or damaged."""
    header = edges.head[offset : offset + SUPERBLOCK_HEADER_SIZE]
    if len(header) < SUPERBLOCK_HEADER_SIZE:
        return None
    magic, _, length, _, checksum = _HEADER.unpack(header)
    if magic != SUPERBLOCK_MAGIC or not 0 < length <= SUPERBLOCK_PAYLOAD_MAX:
        return None
    end = offset + SUPERBLOCK_HEADER_SIZE + length
    payload = edges.head[offset + SUPERBLOCK_HEADER_SIZE : end]
    valid = xxhash.xxh3_64_intdigest(header[:_CHECKED] + payload) == checksum
    return _Slot(range(offset, end if valid else offset))


def _is_blank(data: bytes) -> bool:
    return data.count(0) == len(data) or data.count(0xFF) == len(data)
