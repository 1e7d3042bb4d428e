"""What shards change in the superblock: each change a value that says which shard it is for, and how to apply it.

Values and not functions, because the superblock belongs to one process and shards may be in others: a change
crosses a pipe, is checked there against what its sender owns, and is applied to the superblock as it is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from siltstone.errors import StateError
from siltstone.format.superblock import ACTIVE, CLOSED, EMPTY, KIND_JOURNAL, Extent, Superblock
from siltstone.shard import space
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.format.seal import End

__all__ = [
    "CleanClose",
    "Give",
    "JournalEnd",
    "Pack",
    "Packed",
    "Reserve",
    "Roll",
    "Settle",
    "Settled",
    "ShardChange",
    "TakeEmpty",
    "TakeFresh",
    "taken_by",
]


@dataclass(frozen=True, slots=True)
class TakeEmpty:
    """Take an extent of `size` bytes as an empty journal of `shard`."""

    shard: int
    size: int

    def __call__(self, superblock: Superblock) -> Superblock:
        superblock, extent = allocator.take(superblock, self.size)
        return space.as_empty(superblock, extent, self.shard)[0]

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class TakeFresh:
    """Take an empty journal of the first size for each of `numbers`, at an opening.

    :param kept: take the extents that were kept for this; else new space, and make sure that one is kept
    """

    numbers: tuple[int, ...]
    kept: bool

    def __call__(self, superblock: Superblock) -> Superblock:
        for number in self.numbers:
            extent = allocator.reserve_of(superblock, number) if self.kept else None
            if extent is None:
                superblock, extent = allocator.take(superblock, space.first_size(superblock.erase_block))
            superblock, _empty = space.as_empty(superblock, extent, number)
            if not self.kept:
                superblock = space.with_reserve(superblock, number)
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return set(self.numbers)


@dataclass(frozen=True, slots=True)
class Give:
    """Give an empty journal of `shard` back."""

    shard: int
    extent: int

    def __call__(self, superblock: Superblock) -> Superblock:
        _owned(superblock, self.shard, self.extent, EMPTY)
        return allocator.give(superblock, self.extent)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class Reserve:
    """Keep an extent for the recovery of `shard`, where it has none."""

    shard: int

    def __call__(self, superblock: Superblock) -> Superblock:
        return space.with_reserve(superblock, self.shard)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class Roll:
    """Close journal `old` of `shard` at `end`, and let `fresh` take the writes; either may be None."""

    shard: int
    old: int | None
    end: End | None
    fresh: int | None

    def __call__(self, superblock: Superblock) -> Superblock:
        changed = []
        if self.old is not None:
            changed.append(
                replace(
                    _owned(superblock, self.shard, self.old, ACTIVE),
                    state=CLOSED,
                    end=_known(self.end, self.old),
                )
            )
        if self.fresh is not None:
            extent = _owned(superblock, self.shard, self.fresh, EMPTY)
            changed.append(replace(extent, state=ACTIVE, order=space.next_order(superblock, self.shard)))
        return superblock.with_extents(*changed)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of one shard at an opening.

    :param fresh: the journal that takes the writes, or None
    :param recovered: the journal that was active, or None
    :param end: where the recovered one ends
    :param dropped: nothing of the recovered one is needed: it is empty, or copied to the fresh one
    """

    shard: int
    fresh: int | None
    recovered: int | None
    end: End | None
    dropped: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """Close, free or recycle what was recovered, and let the fresh journals take the writes."""

    settled: tuple[Settled, ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        for one in self.settled:
            if one.fresh is not None:
                extent = _owned(superblock, one.shard, one.fresh, EMPTY)
                order = space.next_order(superblock, one.shard)
                superblock = superblock.with_extents(replace(extent, state=ACTIVE, order=order))
            if one.recovered is None:
                continue
            extent = _owned(superblock, one.shard, one.recovered, ACTIVE)
            if one.dropped:
                superblock = _free(superblock, extent)
            else:
                closed = replace(extent, state=CLOSED, end=_known(one.end, extent.id))
                superblock = superblock.with_extents(closed)
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {one.shard for one in self.settled}


@dataclass(frozen=True, slots=True)
class JournalEnd:
    """Where a shard's active journal ends at a clean close.

    :param closed: nothing may be appended behind it: a batch was given up there
    """

    shard: int
    extent: int
    end: End
    closed: bool


@dataclass(frozen=True, slots=True)
class CleanClose:
    """Give every active journal its end and mark the volume clean. The core's, once all shards have ended."""

    ends: tuple[JournalEnd, ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        changed = [
            replace(
                _owned(superblock, one.shard, one.extent, ACTIVE),
                state=CLOSED if one.closed else ACTIVE,
                end=one.end,
            )
            for one in self.ends
        ]
        return replace(superblock, clean=True).with_extents(*changed)


@dataclass(frozen=True, slots=True)
class Packed:
    """A journal that was filled from others, and where it ends."""

    extent: int
    end: End


@dataclass(frozen=True, slots=True)
class Pack:
    """Let `packed` journals of `shard` take the place of `sources`, its neighbouring closed ones, and free those."""

    shard: int
    sources: tuple[int, ...]
    packed: tuple[Packed, ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        sources = [_owned(superblock, self.shard, number, CLOSED) for number in self.sources]
        orders = sorted(source.order for source in sources)
        between = [
            extent.id
            for extent in superblock.journals(self.shard)
            if orders and orders[0] <= extent.order <= orders[-1]
        ]
        if len(self.packed) > len(sources) or sorted(between) != sorted(self.sources):
            raise StateError(
                f"shard {self.shard}: {len(self.packed)} journals cannot take the place of {list(self.sources)}",
                what=f"shard {self.shard}",
                state="no neighbours",
            )
        # Each takes the place of one of them; where they are fewer, the newest places.
        places = orders[len(orders) - len(self.packed) :]
        for source in sources:
            superblock = _free(superblock, source)
        for one, order in zip(self.packed, places, strict=True):
            extent = _owned(superblock, self.shard, one.extent, EMPTY)
            superblock = superblock.with_extents(replace(extent, state=CLOSED, end=one.end, order=order))
        return space.with_reserve_of_free(superblock, self.shard)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


ShardChange = TakeEmpty | TakeFresh | Give | Reserve | Roll | Settle | Pack


def taken_by(superblock: Superblock, shard: int) -> Extent:
    """The empty journal that `shard` got with the very write that made this superblock."""
    for extent in superblock.extents:
        if extent.shard == shard and extent.state == EMPTY and extent.generation == superblock.sequence:
            return extent
    raise StateError(
        f"shard {shard}: the superblock names no journal that it took", what="shard", state="no journal"
    )


def _free(superblock: Superblock, extent: Extent) -> Superblock:
    """Give a journal's extent back, as the shard's reserve where it has none and the size is right."""
    size = space.first_size(superblock.erase_block)
    if allocator.reserve_of(superblock, extent.shard) is None and extent.length == size:
        return allocator.reserve(superblock, extent.id, extent.shard)
    return allocator.give(superblock, extent.id)


def _owned(superblock: Superblock, shard: int, number: int, state: str) -> Extent:
    """The extent, if it is a journal of the shard in this state: what comes from another process may be wrong."""
    try:
        extent = superblock.extent(number)
    except KeyError as error:
        raise StateError(f"there is no extent {number}", what=f"extent {number}", state="absent") from error
    if extent.kind != KIND_JOURNAL or extent.shard != shard or extent.state != state:
        raise StateError(
            f"extent {number} is no {state} journal of shard {shard}, but {extent.kind} {extent.state} of"
            f" shard {extent.shard}",
            what=f"extent {number}",
            state=extent.state,
        )
    return extent


def _known(end: End | None, number: int) -> End:
    if end is None:
        raise StateError(
            f"journal {number} is closed without an end", what=f"journal {number}", state="no end"
        )
    return end
