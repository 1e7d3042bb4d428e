"""What shards change in the superblock: each change a value that says which shard it is for, and how to apply it.

Values and not functions, because the superblock belongs to one process and shards may be in others: a change
crosses a pipe, is checked there against what its sender owns, and is applied to the superblock as it is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from siltstone.format.constants import JOURNAL_SIZE_MAX
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    EMPTY,
    KINDS_IN_USE,
    Superblock,
)
from siltstone.shard import space
from siltstone.shard.change_of_one import ChangeOfOne
from siltstone.shard.checkpoint_changes import GiveCheckpoints, PublishCheckpoints, TakeCheckpoints
from siltstone.shard.cleaning_changes import (
    Filled,
    Incarnate,
    Merge,
    Narrowed,
    Pack,
    Packed,
    TakeHashStore,
)
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.format.seal import End

__all__ = [
    "CleanClose",
    "Filled",
    "Give",
    "Incarnate",
    "JournalEnd",
    "Merge",
    "Narrowed",
    "Pack",
    "Packed",
    "Reserve",
    "Roll",
    "Rolled",
    "Settle",
    "Settled",
    "ShardChange",
    "TakeEmpty",
    "TakeFresh",
    "TakeHashStore",
    "TakeNext",
]


@dataclass(frozen=True, slots=True)
class TakeNext:
    """Take an extent as the next journal of each of some shards, (shard, bytes), and make sure that enough is kept
    beside it."""

    wanted: tuple[tuple[int, int], ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        for shard, size in self.wanted:
            superblock, extent = allocator.take(superblock, size)
            superblock = space.with_reserve(space.as_empty(superblock, extent, shard)[0], shard)
        return superblock

    def shards(self, _superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {shard for shard, _size in self.wanted}


@dataclass(frozen=True, slots=True)
class TakeEmpty(ChangeOfOne):
    """Take an extent of `size` bytes as an empty journal of `shard`; with `kept` of what is kept for it."""

    size: int
    kept: bool

    def __call__(self, superblock: Superblock) -> Superblock:
        superblock, extent = space.take(superblock, self.shard, self.size, JOURNAL_SIZE_MAX, kept=self.kept)
        return space.as_empty(superblock, extent, self.shard)[0]


@dataclass(frozen=True, slots=True)
class TakeFresh:
    """Take an empty journal of the first size for each of `numbers`, at an opening.

    :param kept: take it of what is kept for the shard, as far as cleaning does not need that, else new space; without
        this take new space, and make sure that some is kept
    """

    numbers: tuple[int, ...]
    kept: bool

    def __call__(self, superblock: Superblock) -> Superblock:
        size = space.first_size(superblock.erase_block)
        for number in self.numbers:
            room = space.room_for_deletions(superblock, number) if self.kept else 0
            if room >= superblock.erase_block:
                superblock, extent = allocator.take_reserved(superblock, number, min(size, room))
            else:
                superblock, extent = allocator.take(superblock, size)
            superblock, _empty = space.as_empty(superblock, extent, number)
            if not self.kept:
                superblock = space.with_reserve(superblock, number)
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return set(self.numbers)


@dataclass(frozen=True, slots=True)
class Give(ChangeOfOne):
    """Give an empty journal or hash store of `shard` back."""

    extent: int

    def __call__(self, superblock: Superblock) -> Superblock:
        space.owned(superblock, self.shard, self.extent, EMPTY, *KINDS_IN_USE)
        return space.with_reserve_of_free(allocator.give(superblock, self.extent), self.shard)


@dataclass(frozen=True, slots=True)
class Reserve(ChangeOfOne):
    """Keep as much for the recovery and the cleaning of `shard` as it needs, where less is kept."""

    def __call__(self, superblock: Superblock) -> Superblock:
        return space.with_reserve(superblock, self.shard)


@dataclass(frozen=True, slots=True)
class Rolled:
    """A shard whose journal `old` is closed at `end` and whose `fresh` takes the writes; either may be None."""

    shard: int
    old: int | None
    end: End | None
    fresh: int | None


@dataclass(frozen=True, slots=True)
class Roll:
    """Close active journals, and let the next ones take the writes; then take those behind them, as `TakeNext` does."""

    rolled: tuple[Rolled, ...]
    wanted: tuple[tuple[int, int], ...] = ()

    def __call__(self, superblock: Superblock) -> Superblock:
        for one in self.rolled:
            changed = []
            if one.old is not None:
                extent = space.owned(superblock, one.shard, one.old, ACTIVE)
                changed.append(replace(extent, state=CLOSED, end=space.known(one.end, one.old)))
            if one.fresh is not None:
                extent = space.owned(superblock, one.shard, one.fresh, EMPTY)
                changed.append(replace(extent, state=ACTIVE, order=space.next_order(superblock, one.shard)))
            superblock = superblock.with_extents(*changed)
        return TakeNext(self.wanted)(superblock)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {one.shard for one in self.rolled} | TakeNext(self.wanted).shards(superblock)


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
                extent = space.owned(superblock, one.shard, one.fresh, EMPTY)
                order = space.next_order(superblock, one.shard)
                superblock = superblock.with_extents(replace(extent, state=ACTIVE, order=order))
            if one.recovered is None:
                continue
            extent = space.owned(superblock, one.shard, one.recovered, ACTIVE)
            if one.dropped:
                superblock = allocator.give(superblock, extent.id)
            else:
                closed = replace(extent, state=CLOSED, end=space.known(one.end, extent.id))
                superblock = superblock.with_extents(closed)
            superblock = space.with_reserve_of_free(superblock, one.shard)
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
                space.owned(superblock, one.shard, one.extent, ACTIVE),
                state=CLOSED if one.closed else ACTIVE,
                end=one.end,
            )
            for one in self.ends
        ]
        return replace(superblock, clean=True).with_extents(*changed)


ShardChange = (
    TakeNext
    | TakeEmpty
    | TakeFresh
    | Give
    | Reserve
    | Roll
    | Settle
    | Pack
    | TakeHashStore
    | Incarnate
    | Merge
    | TakeCheckpoints
    | PublishCheckpoints
    | GiveCheckpoints
)
