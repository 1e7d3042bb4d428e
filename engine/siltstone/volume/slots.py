"""Reads and writes the two superblock slots of a volume, in the order that power cuts ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import ForeignVolumeError, VersionError
from siltstone.format.constants import (
    CLUSTER_SIZE,
    EXTENTS_OFFSET,
    FORMAT_VERSION,
    SLOT_OFFSETS,
    SLOT_SIZE,
)
from siltstone.format.superblock_slot import Slot, choose_slot, decode_slot, slot_length, slot_version

if TYPE_CHECKING:
    from siltstone.volume.backend import Backend


def read_slot(backend: Backend, number: int, like: Slot | None = None) -> tuple[Slot | None, int | None]:
    """Slot 0 or 1 of a volume, or None where it is not whole; and the format version that its header names.

    :param like: the other one, where it was read before
    """
    header = bytes(backend.read(SLOT_OFFSETS[number], CLUSTER_SIZE, fresh=True))
    length, version = slot_length(header), slot_version(header)
    if length is None:
        return None, version
    data = header
    if length > len(header):
        whole = min(-(-length // CLUSTER_SIZE) * CLUSTER_SIZE, SLOT_SIZE)
        data = bytes(backend.read(SLOT_OFFSETS[number], whole, fresh=True))
    return decode_slot(data, backend.url, like), version


def read_superblock(backend: Backend) -> tuple[Slot, int]:
    """The current superblock, past every cache, and the number of the slot that holds it. Writes nothing."""
    if backend.size < EXTENTS_OFFSET:
        raise ForeignVolumeError(
            f"{backend.url}: {backend.size} bytes, too small for a Siltstone volume", url=backend.url
        )
    first, version = read_slot(backend, 0)
    second, other_version = read_slot(backend, 1, first)
    if first is None and second is None:
        other = [each for each in (version, other_version) if each not in (None, FORMAT_VERSION)]
        if other:
            raise VersionError(
                f"{backend.url}: format version {other[0]}; this release knows {FORMAT_VERSION}",
                url=backend.url,
                version=other[0],
                known=FORMAT_VERSION,
            )
    chosen = choose_slot(first, second, backend.url)
    return chosen, 0 if first is chosen else 1


def write_slots(backend: Backend, data: bytes, current: int) -> int:
    """Write an encoded superblock to both slots, first to the one that is not `current`; durable on return.

    Returns the number of the slot written first. While one slot is being written the other one is whole.
    """
    for number in (1 - current, current):
        backend.write(SLOT_OFFSETS[number], data)
        backend.flush()
    return 1 - current


def erase_slots(backend: Backend) -> None:
    """Zero all that lies before the first extent, durably: from here on nothing of what was there can be found.

    Whole, not just the headers: the signature of a foreign file system may lie anywhere in it.
    """
    backend.write(0, bytes(EXTENTS_OFFSET))
    backend.flush()
