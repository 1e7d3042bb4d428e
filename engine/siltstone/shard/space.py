"""How extents become a shard's journals and its reserve: pure changes of a superblock, no I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from siltstone.errors import StateError
from siltstone.format.constants import JOURNAL_ERASE_BLOCKS_FIRST
from siltstone.format.superblock import (
    EMPTY,
    KIND_CHECKPOINT,
    KIND_FREE,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    Extent,
    Superblock,
)
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.format.seal import End


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


def as_empty_hash_store(superblock: Superblock, extent: Extent, shard: int) -> Superblock:
    """The superblock in which `extent` is a hash store of `shard` that is about to be filled."""
    superblock, empty = as_empty(superblock, extent, shard)
    return superblock.with_extents(replace(empty, kind=KIND_HASH_STORE))


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


def taken_by(superblock: Superblock, shard: int, *, checkpoint: bool = False) -> Extent:
    """The empty journal or hash store, or the checkpoint, that `shard` got with the very write that made this
    superblock."""
    for extent in superblock.extents:
        if (
            extent.shard == shard
            and (extent.kind == KIND_CHECKPOINT) == checkpoint
            and extent.state == EMPTY
            and extent.generation == superblock.sequence
        ):
            return extent
    raise StateError(
        f"shard {shard}: the superblock names no journal that it took", what="shard", state="no journal"
    )


def freed(superblock: Superblock, extent: Extent) -> Superblock:
    """Give a journal's extent back, as the shard's reserve where it has none and the size is right."""
    size = first_size(superblock.erase_block)
    if allocator.reserve_of(superblock, extent.shard) is None and extent.length == size:
        return allocator.reserve(superblock, extent.id, extent.shard)
    return allocator.give(superblock, extent.id)


def owned(superblock: Superblock, shard: int, number: int, state: str, *kinds: str) -> Extent:
    """The extent, if it is a journal of the shard in this state, or one of `kinds`: what comes from another process
    may be wrong."""
    try:
        extent = superblock.extent(number)
    except KeyError as error:
        raise StateError(f"there is no extent {number}", what=f"extent {number}", state="absent") from error
    kinds = kinds or (KIND_JOURNAL,)
    if extent.kind not in kinds or extent.shard != shard or extent.state != state:
        raise StateError(
            f"extent {number} is no {state} {kinds[0]} of shard {shard}, but {extent.kind} {extent.state} of"
            f" shard {extent.shard}",
            what=f"extent {number}",
            state=extent.state,
        )
    return extent


def known(end: End | None, number: int) -> End:
    if end is None:
        raise StateError(
            f"journal {number} is closed without an end", what=f"journal {number}", state="no end"
        )
    return end
