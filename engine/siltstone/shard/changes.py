"""What shards change in the superblock: each change a value that says which shard it is for, and how to apply it.

Values and not functions, because the superblock belongs to one process and shards may be in others: a change
crosses a pipe, is checked there against what its sender owns, and is applied to the superblock as it is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from siltstone.errors import StateError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    EMPTY,
    KIND_HASH_STORE,
    KINDS_IN_USE,
    Superblock,
)
from siltstone.hash_store.extent import CLUSTERS_MAX
from siltstone.shard import space
from siltstone.shard.checkpoint_changes import GiveCheckpoints, PublishCheckpoints, TakeCheckpoints
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
    "Pack",
    "Packed",
    "Reserve",
    "Roll",
    "Settle",
    "Settled",
    "ShardChange",
    "TakeEmpty",
    "TakeFresh",
    "TakeHashStore",
]


HASH_STORE_SIZE_MAX: Final = CLUSTERS_MAX * CLUSTER_SIZE


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
    """Give an empty journal or hash store of `shard` back."""

    shard: int
    extent: int

    def __call__(self, superblock: Superblock) -> Superblock:
        space.owned(superblock, self.shard, self.extent, EMPTY, *KINDS_IN_USE)
        return allocator.give(superblock, self.extent)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class TakeHashStore:
    """Take an extent of `size` bytes as a hash store of `shard` that is about to be filled."""

    shard: int
    size: int

    def __call__(self, superblock: Superblock) -> Superblock:
        superblock, extent = allocator.take(superblock, self.size, HASH_STORE_SIZE_MAX)
        return space.as_empty_hash_store(superblock, extent, self.shard)

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
                    space.owned(superblock, self.shard, self.old, ACTIVE),
                    state=CLOSED,
                    end=space.known(self.end, self.old),
                )
            )
        if self.fresh is not None:
            extent = space.owned(superblock, self.shard, self.fresh, EMPTY)
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
                extent = space.owned(superblock, one.shard, one.fresh, EMPTY)
                order = space.next_order(superblock, one.shard)
                superblock = superblock.with_extents(replace(extent, state=ACTIVE, order=order))
            if one.recovered is None:
                continue
            extent = space.owned(superblock, one.shard, one.recovered, ACTIVE)
            if one.dropped:
                superblock = space.freed(superblock, extent)
            else:
                closed = replace(extent, state=CLOSED, end=space.known(one.end, extent.id))
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
                space.owned(superblock, one.shard, one.extent, ACTIVE),
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
        sources = [space.owned(superblock, self.shard, number, CLOSED) for number in self.sources]
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
            superblock = space.freed(superblock, source)
        for one, order in zip(self.packed, places, strict=True):
            extent = space.owned(superblock, self.shard, one.extent, EMPTY)
            superblock = superblock.with_extents(replace(extent, state=CLOSED, end=one.end, order=order))
        return space.with_reserve_of_free(superblock, self.shard)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class Filled:
    """A hash store that was filled, and the bytes of its extent that it needs, whole erase blocks."""

    extent: int
    length: int

    def publish(self, superblock: Superblock, shard: int, order: int) -> Superblock:
        """The superblock in which it is a hash store of `shard`; what it does not need is free again."""
        filled = space.owned(superblock, shard, self.extent, EMPTY, KIND_HASH_STORE)
        superblock = superblock.with_extents(replace(filled, state=CLOSED, order=order))
        return allocator.trim(superblock, self.extent, self.length)


@dataclass(frozen=True, slots=True)
class Incarnate:
    """Let a hash store, and `packed` journals for what has no key, take the place of the oldest journals of `shard`.

    :param sources: those journals, all closed; freed
    :param hash_store: filled; None where nothing of them has a key that counts
    :param passed: all older ones, in which nothing has a key; they stay
    """

    shard: int
    sources: tuple[int, ...]
    packed: tuple[Packed, ...]
    hash_store: Filled | None
    passed: tuple[int, ...] = ()

    def __call__(self, superblock: Superblock) -> Superblock:
        journals, passed = superblock.journals(self.shard), len(self.passed)
        oldest = journals[passed : passed + len(self.sources)]
        if (
            not self.sources
            or {extent.id for extent in oldest} != set(self.sources)
            or {extent.id for extent in journals[:passed]} != set(self.passed)
        ):
            raise StateError(
                f"shard {self.shard}: {list(self.sources)} are not its oldest journals",
                what=f"shard {self.shard}",
                state="not the oldest",
            )
        superblock = Pack(self.shard, self.sources, self.packed)(superblock)
        if self.hash_store is None:
            return superblock
        return self.hash_store.publish(superblock, self.shard, max(extent.order for extent in oldest))

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


@dataclass(frozen=True, slots=True)
class Merge:
    """Let one hash store take the place of `sources`, neighbouring hash stores of `shard`, and free those.

    :param merged: filled; None where nothing of them is left, or they are given up
    """

    shard: int
    sources: tuple[int, ...]
    merged: Filled | None

    def __call__(self, superblock: Superblock) -> Superblock:
        found = [
            space.owned(superblock, self.shard, number, CLOSED, KIND_HASH_STORE) for number in self.sources
        ]
        numbers = [extent.id for extent in superblock.hash_stores(self.shard)]
        oldest = min(map(numbers.index, self.sources), default=0)
        if not found or sorted(numbers[oldest : oldest + len(found)]) != sorted(self.sources):
            raise StateError(
                f"shard {self.shard}: hash stores {list(self.sources)} are no neighbours",
                what=f"shard {self.shard}",
                state="no neighbours",
            )
        for source in found:
            superblock = allocator.give(superblock, source.id)
        if self.merged is not None:
            order = max(source.order for source in found)
            superblock = self.merged.publish(superblock, self.shard, order)
        return space.with_reserve_of_free(superblock, self.shard)

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}


ShardChange = (
    TakeEmpty
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
