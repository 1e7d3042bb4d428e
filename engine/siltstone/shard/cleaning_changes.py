"""What cleaning changes in the superblock: journals and hash stores take the place of others; see changes.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from siltstone.errors import StateError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.superblock import CLOSED, EMPTY, KIND_HASH_STORE, Superblock
from siltstone.hash_store.extent import CLUSTERS_MAX
from siltstone.shard import space
from siltstone.shard.change_of_one import ChangeOfOne
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.format.seal import End

HASH_STORE_SIZE_MAX: Final = CLUSTERS_MAX * CLUSTER_SIZE


@dataclass(frozen=True, slots=True)
class TakeHashStore(ChangeOfOne):
    """Take an extent of `size` bytes as a hash store of `shard` that is about to be filled.

    :param kept: of what is kept for the shard
    """

    size: int
    kept: bool

    def __call__(self, superblock: Superblock) -> Superblock:
        superblock, extent = space.take(
            superblock, self.shard, self.size, HASH_STORE_SIZE_MAX, kept=self.kept
        )
        return space.as_empty_hash_store(superblock, extent, self.shard)


@dataclass(frozen=True, slots=True)
class Packed:
    """A journal that was filled from others, and where it ends."""

    extent: int
    end: End


@dataclass(frozen=True, slots=True)
class Pack(ChangeOfOne):
    """Let `packed` journals of `shard` take the place of `sources`, its neighbouring closed ones, and free those."""

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
        if not sources or sorted(between) != sorted(self.sources):
            raise StateError(
                f"shard {self.shard}: {len(self.packed)} journals cannot take the place of {list(self.sources)}",
                what=f"shard {self.shard}",
                state="no neighbours",
            )
        # Each takes the place of one of them; where they are fewer, the newest places; where they are more, what comes
        # behind moves on.
        more, last = max(0, len(self.packed) - len(sources)), orders[-1]
        superblock = superblock.with_extents(
            *(
                replace(extent, order=extent.order + more)
                for extent in superblock.journals(self.shard)
                if extent.order > last
            )
        )
        orders.extend(range(last + 1, last + 1 + more))
        places = orders[len(orders) - len(self.packed) :]
        for source in sources:
            superblock = allocator.give(superblock, source.id)
        for one, order in zip(self.packed, places, strict=True):
            extent = space.owned(superblock, self.shard, one.extent, EMPTY)
            superblock = superblock.with_extents(replace(extent, state=CLOSED, end=one.end, order=order))
        return space.with_reserve_of_free(superblock, self.shard)


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
class Incarnate(ChangeOfOne):
    """Let a hash store, and `packed` journals for what has no key, take the place of the oldest journals of `shard`.

    :param sources: those journals, all closed; freed
    :param hash_store: filled; None where nothing of them has a key that counts
    :param passed: all older ones, in which nothing has a key; they stay
    """

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


@dataclass(frozen=True, slots=True)
class Merge(ChangeOfOne):
    """Let one hash store take the place of `sources`, neighbouring hash stores of `shard`, and free those.

    :param merged: filled; None where nothing of them is left, or they are given up
    """

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
