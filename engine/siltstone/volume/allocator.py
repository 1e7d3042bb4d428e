"""Takes extents from a volume's space and gives them back: pure changes of a superblock, no I/O."""

from __future__ import annotations

from dataclasses import replace

from siltstone.errors import BatchTooLargeError, StateError
from siltstone.format.constants import JOURNAL_SIZE_MAX
from siltstone.format.superblock import (
    CLOSED,
    FREE,
    KIND_CHECKPOINT,
    KIND_FREE,
    KIND_RESERVE,
    Extent,
    Superblock,
    first_extent_offset,
)


def round_to_erase_blocks(size: int, erase_block: int) -> int:
    """`size` bytes rounded up to whole erase blocks, at least one."""
    return max(1, -(-size // erase_block)) * erase_block


def end_of_extents(superblock: Superblock) -> int:
    """First byte behind all extents: the space that the volume needs [bytes]."""
    return max(
        (extent.stop for extent in superblock.extents), default=first_extent_offset(superblock.erase_block)
    )


def free_bytes(superblock: Superblock) -> int:
    """Bytes in free extents, those kept for recovery not among them."""
    return sum(extent.length for extent in superblock.extents if extent.kind == KIND_FREE)


def take(superblock: Superblock, size: int, limit: int = JOURNAL_SIZE_MAX) -> tuple[Superblock, Extent]:
    """Take `size` bytes, rounded up to erase blocks: the smallest free extent that fits, else space at the end.

    Returns the changed superblock and the extent, still free; whether the medium reaches to its end is for
    the caller to see. BatchTooLargeError beyond `limit`.
    """
    size = round_to_erase_blocks(size, superblock.erase_block)
    if size > max(limit, superblock.erase_block):
        raise BatchTooLargeError(
            f"an extent of {size} bytes is needed; at most {limit}", size=size, limit=limit
        )
    fitting = [extent for extent in superblock.extents if extent.kind == KIND_FREE and extent.length >= size]
    if not fitting:
        fresh = Extent(superblock.next_extent, end_of_extents(superblock), size)
        return replace(superblock, next_extent=superblock.next_extent + 1).with_extents(fresh), fresh
    best = min(fitting, key=lambda extent: (extent.length, extent.offset))
    taken = replace(best, length=size)
    if best.length == size:
        return superblock, taken
    rest = Extent(superblock.next_extent, best.offset + size, best.length - size)
    return replace(superblock, next_extent=superblock.next_extent + 1).with_extents(taken, rest), taken


def take_reserved(superblock: Superblock, shard: int, size: int) -> tuple[Superblock, Extent]:
    """Take `size` bytes, rounded up to erase blocks, from what is kept for `shard`: the smallest extent that fits.

    As :func:`take` returns it; the rest is kept on. StateError where none of the extents is as long.
    """
    size = round_to_erase_blocks(size, superblock.erase_block)
    fitting = [extent for extent in reserves_of(superblock, shard) if extent.length >= size]
    if not fitting:
        raise StateError(
            f"shard {shard}: no {size} bytes are kept for it", what=f"shard {shard}", state="no reserve"
        )
    best = fitting[-1]
    taken = Extent(best.id, best.offset, size, state=FREE)
    if best.length == size:
        return superblock.with_extents(taken), taken
    rest = replace(best, id=superblock.next_extent, offset=best.offset + size, length=best.length - size)
    return replace(superblock, next_extent=superblock.next_extent + 1).with_extents(taken, rest), taken


def give(superblock: Superblock, number: int) -> Superblock:
    """Give extent `number` back, joined with free neighbours."""
    freed = superblock.extent(number)
    freed = Extent(freed.id, freed.offset, freed.length, state=FREE)
    joined = {}
    for extent in superblock.extents:
        if extent.kind == KIND_FREE and extent.stop == freed.offset:
            freed = replace(freed, offset=extent.offset, length=freed.length + extent.length)
            joined[extent.id] = True
        elif extent.kind == KIND_FREE and extent.offset == freed.stop:
            freed = replace(freed, length=freed.length + extent.length)
            joined[extent.id] = True
    kept = tuple(extent for extent in superblock.extents if extent.id not in joined)
    return replace(superblock, extents=kept).with_extents(freed)


def trim(superblock: Superblock, number: int, length: int) -> Superblock:
    """Let extent `number` keep its first `length` bytes, whole erase blocks, and give the rest back."""
    extent = superblock.extent(number)
    if not 0 < length <= extent.length or length % superblock.erase_block:
        raise StateError(
            f"extent {number} of {extent.length} bytes cannot be cut to {length}",
            what=f"extent {number}",
            state=extent.state,
        )
    if length == extent.length:
        return superblock
    rest = Extent(superblock.next_extent, extent.offset + length, extent.length - length)
    superblock = replace(superblock, next_extent=superblock.next_extent + 1).with_extents(
        replace(extent, length=length), rest
    )
    return give(superblock, rest.id)


def reserve(superblock: Superblock, number: int, shard: int) -> Superblock:
    """Keep extent `number` for the recovery and the cleaning of `shard`."""
    extent = superblock.extent(number)
    return superblock.with_extents(
        Extent(extent.id, extent.offset, extent.length, KIND_RESERVE, shard, state=FREE)
    )


def reserves_of(superblock: Superblock, shard: int) -> list[Extent]:
    """The extents kept for `shard`, the longest first."""
    found = [extent for extent in superblock.extents if extent.kind == KIND_RESERVE and extent.shard == shard]
    return sorted(found, key=lambda extent: -extent.length)


def reserved_bytes(superblock: Superblock, shard: int) -> int:
    """Bytes kept for `shard`."""
    return sum(extent.length for extent in reserves_of(superblock, shard))


def checkpoint_of(superblock: Superblock, shard: int) -> Extent | None:
    """The checkpoint of `shard` that was written to its end, or None; whether it is any good is not known."""
    for extent in superblock.extents:
        if extent.kind == KIND_CHECKPOINT and extent.state == CLOSED and extent.shard == shard:
            return extent
    return None
