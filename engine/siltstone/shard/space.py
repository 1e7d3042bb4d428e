"""How extents become a shard's journals and its reserve: pure changes of a superblock, no I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from siltstone.errors import StateError
from siltstone.format.constants import (
    CLUSTER_SIZE,
    JOURNAL_ERASE_BLOCKS_FIRST,
    JOURNAL_SIZE_MAX,
    SLOT_CLUSTERS,
)
from siltstone.format.superblock import (
    CLOSED,
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
    from collections.abc import Iterable, Sequence

    from siltstone.format.seal import End

#: so many neighbouring hash stores of one size are merged
TIER_WIDTH: Final = 4


def first_size(erase_block: int) -> int:
    """Bytes of the first journal of a shard, and of what is kept for its recovery."""
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


def take(
    superblock: Superblock, shard: int, size: int, limit: int, *, kept: bool
) -> tuple[Superblock, Extent]:
    """Take `size` bytes, at most `limit`; with `kept` of what is kept for the shard."""
    if kept:
        return allocator.take_reserved(superblock, shard, size)
    return allocator.take(superblock, size, limit)


def as_empty_hash_store(superblock: Superblock, extent: Extent, shard: int) -> Superblock:
    """The superblock in which `extent` is a hash store of `shard` that is about to be filled."""
    superblock, empty = as_empty(superblock, extent, shard)
    return superblock.with_extents(replace(empty, kind=KIND_HASH_STORE))


def largest_journal(superblock: Superblock, shard: int) -> int:
    """Bytes of the largest journal of a shard that may have to be copied so that its space is free again.

    Also of one that is empty yet: by the time it is not there may be no more space. 0 for a shard that has but one.
    """
    lengths = [
        each.length for each in superblock.extents if each.kind == KIND_JOURNAL and each.shard == shard
    ]
    return max(lengths) if len(lengths) > 1 else 0


def closed_bytes(superblock: Superblock, shard: int) -> int:
    """Bytes of the closed journals and hash stores of a shard."""
    extents = (*superblock.hash_stores(shard), *superblock.journals(shard))
    return sum(extent.length for extent in extents if extent.state == CLOSED)


def merge_bytes(superblock: Superblock, shard: int) -> int:
    """Bytes that merging any TIER_WIDTH neighbouring hash stores of a shard takes at most beside what they have.

    Of each one part that is merged in part, and the part that is being written; but never more than all of them.
    """
    lengths = [part.length for part in superblock.hash_stores(shard)]
    return min((TIER_WIDTH + 1) * max(lengths, default=0), sum(lengths))


def cleaning_bytes(superblock: Superblock, shard: int) -> int:
    """Bytes that are kept so that the journals and hash stores of a shard can be written anew on a full volume."""
    return max(largest_journal(superblock, shard), merge_bytes(superblock, shard))


def reserve_size(superblock: Superblock, shard: int) -> int:
    """Bytes that are to be kept for a shard, so that it can be opened, deleted from and cleaned on a full volume.

    As much as its largest journal, into which what is alive in any of them can be copied, or as merging its hash stores
    takes; beside that half as much as the journal for deletions; a first journal at least.
    """
    first = first_size(superblock.erase_block)
    largest = largest_journal(superblock, shard)
    room = max(first, allocator.round_to_erase_blocks(largest // 2, superblock.erase_block))
    needed = min(largest + room, JOURNAL_SIZE_MAX) if largest else first
    return max(needed, merge_bytes(superblock, shard) + room)


def room_for_deletions(superblock: Superblock, shard: int) -> int:
    """Bytes in one piece of what is kept for a shard that deletions may take; what cleaning needs remains."""
    kept = [each.length for each in allocator.reserves_of(superblock, shard)]
    block, largest = superblock.erase_block, largest_journal(superblock, shard)
    spared = sum(kept) - cleaning_bytes(superblock, shard)
    most = max(0, min(spared, kept[0] if kept else 0))
    return next((size for size in range(most, 0, -block) if _can_copy(_without(kept, size), largest)), 0)


def _without(pieces: Sequence[int], size: int) -> list[int]:
    """The bytes of some pieces, the longest first, once so many were taken of the shortest that has them."""
    at = max(number for number, length in enumerate(pieces) if length >= size)
    return [length - size if number == at else length for number, length in enumerate(pieces)]


def _can_copy(pieces: Iterable[int], journal: int) -> bool:
    """Whether a journal of so many bytes can be copied into some pieces: of each a few clusters hold nothing."""
    if journal == 0 or max(pieces, default=0) >= journal:
        return True
    room = sum(max(0, length - (SLOT_CLUSTERS + 2) * CLUSTER_SIZE) for length in pieces)
    return room >= journal - (SLOT_CLUSTERS + 1) * CLUSTER_SIZE


def with_reserve(superblock: Superblock, shard: int) -> Superblock:
    """The superblock in which as much is kept for `shard` as it needs, from free space or at the end."""
    size = reserve_size(superblock, shard)
    kept = allocator.reserves_of(superblock, shard)
    if len(kept) > 1 and sum(each.length for each in kept) >= size:
        largest = max((each.length for each in superblock.extents if each.kind == KIND_FREE), default=0)
        if largest <= kept[0].length:
            return superblock  # no larger piece is to be had
    superblock = with_reserve_of_free(superblock, shard)
    missing = size - allocator.reserved_bytes(superblock, shard)
    while missing > 0:
        superblock, extent = allocator.take(superblock, min(missing, JOURNAL_SIZE_MAX))
        superblock = allocator.reserve(superblock.with_extents(extent), extent.id, shard)
        missing -= extent.length
    return superblock


def with_reserve_of_free(superblock: Superblock, shard: int) -> Superblock:
    """The superblock in which what is kept for `shard` is what it needs, or as much of that as is free.

    In as few pieces as it can be.
    """
    size = reserve_size(superblock, shard)
    kept = allocator.reserves_of(superblock, shard)
    if len(kept) == 1 and kept[0].length >= size:
        return allocator.trim(superblock, kept[0].id, size)
    anew = superblock
    for each in kept:
        anew = allocator.give(anew, each.id)
    missing = size
    while missing > 0:
        free = max((each.length for each in anew.extents if each.kind == KIND_FREE), default=0)
        if free == 0:
            break
        anew, extent = allocator.take(anew, min(missing, free, JOURNAL_SIZE_MAX))
        anew = allocator.reserve(anew.with_extents(extent), extent.id, shard)
        missing -= extent.length
    return anew if _rank(anew, shard, size) > _rank(superblock, shard, size) else superblock


def _rank(superblock: Superblock, shard: int, size: int) -> tuple[int, int, int]:
    """How good it is what is kept for a shard: as much as it needs, no more, in few pieces."""
    kept = [each.length for each in allocator.reserves_of(superblock, shard)]
    return min(sum(kept), size), -sum(kept), -len(kept)


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
