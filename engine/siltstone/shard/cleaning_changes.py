"""What cleaning changes in the superblock: journals and hash stores take the place of others; see changes.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from siltstone.errors import StateError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.superblock import CLOSED, EMPTY, KIND_HASH_STORE, Extent, Part, Superblock
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
    """A part of a hash store that was filled, and the bytes of its extent that it needs, whole erase blocks."""

    extent: int
    length: int
    part: Part

    def publish(self, superblock: Superblock, shard: int, order: int) -> Superblock:
        """The superblock in which it is part of a hash store of `shard`; what it does not need is free again."""
        filled = space.owned(superblock, shard, self.extent, EMPTY, KIND_HASH_STORE)
        superblock = superblock.with_extents(replace(filled, state=CLOSED, order=order, part=self.part))
        return allocator.trim(superblock, self.extent, self.length)


@dataclass(frozen=True, slots=True)
class Incarnate(ChangeOfOne):
    """Let a hash store, and `packed` journals for what has no key, take the place of the oldest journals of `shard`.

    :param sources: those journals, all closed; freed
    :param parts: of the hash store, filled; none where nothing of them has a key that counts
    :param passed: all older ones, in which nothing has a key; they stay
    """

    sources: tuple[int, ...]
    packed: tuple[Packed, ...]
    parts: tuple[Filled, ...]
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
        for part in self.parts:
            superblock = part.publish(superblock, self.shard, max(extent.order for extent in oldest))
        _check_parts(superblock, self.shard)
        return space.with_reserve_of_free(superblock, self.shard)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A part of a hash store of which some was merged, and what is left of it."""

    extent: int
    part: Part


@dataclass(frozen=True, slots=True)
class Merge(ChangeOfOne):
    """Let `merged` take the place of what some neighbouring hash stores of `shard` have of its hashes.

    :param order: place of the newest of these hash stores in the replay; `merged` becomes a part of that
    :param freed: parts of which nothing is left
    :param narrowed: one part of each store at most, of which something is left
    :param merged: filled; None where nothing comes of it, or all is given up
    """

    order: int
    freed: tuple[int, ...]
    narrowed: tuple[Narrowed, ...]
    merged: Filled | None

    def __call__(self, superblock: Superblock) -> Superblock:
        touched = self._touched(superblock)
        for number in self.freed:
            superblock = allocator.give(superblock, number)
        superblock = superblock.with_extents(
            *(replace(touched[one.extent], part=one.part) for one in self.narrowed)
        )
        if self.merged is not None:
            superblock = self.merged.publish(superblock, self.shard, self.order)
        _check_parts(superblock, self.shard)
        return space.with_reserve_of_free(superblock, self.shard)

    def _touched(self, superblock: Superblock) -> dict[int, Extent]:
        """The parts that it is about, by id; StateError where they do not go together."""
        numbers = [*self.freed, *(one.extent for one in self.narrowed)]
        touched = {
            number: space.owned(superblock, self.shard, number, CLOSED, KIND_HASH_STORE) for number in numbers
        }
        orders = {part.order for part in superblock.hash_stores(self.shard)}
        changed = {part.order for part in touched.values()}
        between = {order for order in orders if changed and min(changed) <= order <= self.order}
        if (
            not touched
            or len(touched) != len(numbers)
            or not changed <= between <= changed | {self.order}
            or self.order not in orders
        ):
            raise StateError(
                f"shard {self.shard}: parts {numbers} of hash stores are no neighbours up to {self.order}",
                what=f"shard {self.shard}",
                state="no neighbours",
            )
        return touched


def _check_parts(superblock: Superblock, shard: int) -> None:
    """StateError where the parts of a shard's hash stores are none that a superblock may name."""
    seen = set()
    for extent in superblock.hash_stores(shard):
        part, place = extent.part, (extent.order, extent.part and extent.part.first)
        if part is None or place in seen or not part.tombstones <= part.entries <= extent.length:
            raise StateError(
                f"extent {extent.id} of {extent.length} bytes cannot have {part} of hash store {extent.order}",
                what=f"extent {extent.id}",
                state="no such part",
            )
        seen.add(place)
