"""How extents become a shard's journals and its reserve: pure changes of a superblock, no I/O."""

from __future__ import annotations

from dataclasses import replace

from siltstone.format.constants import JOURNAL_ERASE_BLOCKS_FIRST
from siltstone.format.superblock import EMPTY, KIND_FREE, KIND_JOURNAL, Extent, Superblock
from siltstone.volume import allocator


def first_size(erase_block: int) -> int:
    """Bytes of the first journal of a shard, and of the extent kept for its recovery."""
    return JOURNAL_ERASE_BLOCKS_FIRST * erase_block


def next_order(superblock: Superblock, shard: int) -> int:
    """An order behind every journal of the shard."""
    return 1 + max((extent.order for extent in superblock.extents if extent.shard == shard), default=0)


def as_empty(superblock: Superblock, extent: Extent, shard: int) -> tuple[Superblock, Extent]:
    """The superblock in which `extent` is an empty journal of `shard`; its life is this superblock write's."""
    empty = replace(
        extent, kind=KIND_JOURNAL, shard=shard, state=EMPTY, generation=superblock.sequence, end=None, order=0
    )
    return superblock.with_extents(empty), empty


def with_reserve(superblock: Superblock, shard: int) -> Superblock:
    """The superblock in which `shard` has an extent kept for its recovery, taken at the end or from free space."""
    if allocator.reserve_of(superblock, shard) is not None:
        return superblock
    superblock, extent = allocator.take(superblock, first_size(superblock.erase_block))
    return allocator.reserve(superblock.with_extents(extent), extent.id, shard)


def with_reserve_of_free(superblock: Superblock, shard: int) -> Superblock:
    """As :func:`with_reserve`, where free space suffices for it; else the superblock as it is."""
    size = first_size(superblock.erase_block)
    if any(extent.kind == KIND_FREE and extent.length >= size for extent in superblock.extents):
        return with_reserve(superblock, shard)
    return superblock
