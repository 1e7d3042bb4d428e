"""Fills an extent with a hash store: takes the space, sorts or merges, writes, makes it durable."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from siltstone.errors import DiskFullError, MediumError, SiltstoneError, StateError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import journal_key
from siltstone.format.superblock import KIND_FREE, Part
from siltstone.hash_store.builder import HashStoreBuilder
from siltstone.hash_store.extent import plan
from siltstone.shard import sizing, space
from siltstone.shard.changes import Filled, Give, TakeEmpty, TakeHashStore
from siltstone.volume.allocator import reserves_of, round_to_erase_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent, Superblock
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume


#: entries of one hash that are planned for where a part ends: more than chance will ever bring
_OF_ONE_HASH: Final = 8


class Unflushed:
    """What is written beside the journals that take puts, from when this is made until it is durable.

    A flush for those journals that fails tells them alone, and the next one may succeed although the kernel has
    dropped these writes too.
    """

    def __init__(self, volume: ShardVolume) -> None:
        self._volume = volume
        self._failed = volume.flushes_failed

    def flush(self) -> None:
        """Return once it is durable; MediumError where any flush failed since the first of these writes."""
        self._volume.flush()
        if self._volume.flushes_failed != self._failed:
            raise MediumError(
                f"{self._volume.backend.url}: a flush failed while journals or hash stores were written anew",
                url=self._volume.backend.url,
                operation="flush",
            )


class Source(Protocol):
    """Packed entries in the order of a hash store, taken in slices."""

    @property
    def place(self) -> int | None:
        """The hash from which on nothing was taken yet; None where all is."""

    def slice(self, entries: int, entry_bytes: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the next entries, at most so many of so many bytes, but for further ones of the last hash."""


class Amount(NamedTuple):
    """How much there may be at most.

    :param entries: how many
    :param entry_bytes: of all of them
    :param largest: none is larger [bytes]
    """

    entries: int
    entry_bytes: int
    largest: int


def fill_part(
    shard: Shard, source: Source, most: Amount, order: int, first: int, *, kept: bool
) -> Extent | None:
    """Write the next entries of `source` as a part of a hash store; its extent, named `empty`, or None for no entries.

    It takes as many as such a part should have, or as there is space for. The extent that is returned has the length
    that it needs; what it was planned with is its own until it is published. Written, not flushed. DiskFullError where
    there is no space for it; its extent is given back where anything fails.

    :param most: of what is left in `source`
    :param order: place of the hash store in the replay
    :param first: least hash that the part is for
    :param kept: it may go to what is kept for the shard where there is no other space
    """
    volume = shard.volume
    least = plan(*_enough(most, 1))
    clusters = max(_clusters_of_parts(volume.superblock, shard.number, plan(*most)), least)
    extent, clusters = _take_part(shard, clusters, least, kept=kept)
    try:
        entries, entry_bytes = _budget(most, clusters)
        builder = HashStoreBuilder(
            journal_key(volume.superblock.uuid, extent.id, extent.generation),
            extent.generation,
            shard.store.types,
            volume.superblock.uuid,
            lambda offset, data: volume.backend.write(extent.offset + offset, data),
            entries_max=entries + _OF_ONE_HASH,
            clusters=extent.length // CLUSTER_SIZE,
        )
        for chunk in source.slice(entries, entry_bytes):
            builder.add(chunk)
        if builder.entries:
            size = builder.finish().clusters * CLUSTER_SIZE
            # Less than was planned where keys came several times, or were deleted.
            length = round_to_erase_blocks(size, volume.superblock.erase_block)
            part = Part(first, builder.entries, builder.tombstones)
            return replace(extent, length=length, order=order, part=part)
        if source.place is not None:
            # Whoever goes by None would give up what is left.
            raise StateError(
                f"shard {shard.number}: {clusters} clusters take none of {most}",
                what="hash store",
                state="left",
            )
    except BaseException:
        give_back(shard, extent)
        raise
    give_back(shard, extent)
    return None


def _take_part(shard: Shard, clusters: int, least: int, *, kept: bool) -> tuple[Extent, int]:
    """An extent for a part of so many clusters, or of as many as there is a piece of space for, at least `least`."""
    while True:
        try:
            return take_to_clean(shard, TakeHashStore, clusters * CLUSTER_SIZE, kept=kept), clusters
        except DiskFullError:
            size = _largest_piece(shard, kept=kept) // CLUSTER_SIZE
            # Another process may have taken the piece that this one knows of.
            clusters = size if size < clusters else clusters // 2
            if shard.volume.poisoned or clusters < least:
                raise


def _clusters_of_parts(superblock: Superblock, shard: int, whole: int) -> int:
    """Of how many clusters the next part should be where all that is left would take `whole` of them."""
    most = sizing.part_size(superblock, shard) // CLUSTER_SIZE
    # Of about one size, not large ones and a small one; and none that leaves much of its last erase block empty.
    even = -(-whole // -(-whole // most)) * CLUSTER_SIZE
    return min(most, round_to_erase_blocks(even, superblock.erase_block) // CLUSTER_SIZE)


def _budget(most: Amount, clusters: int) -> tuple[int, int]:
    """Entries and their bytes that a hash store of so many clusters surely holds, further ones of a hash included."""

    def fits(entries: int) -> bool:
        return plan(*_enough(most, entries)) <= clusters

    low, high = 0, most.entries
    if fits(high):
        return most.entries, most.entry_bytes
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    enough = _enough(most, low)
    return low, enough.entry_bytes - _OF_ONE_HASH * most.largest


def _enough(most: Amount, entries: int) -> Amount:
    """What a slice of so many entries may have, of which the first fits in any case."""
    if entries >= most.entries:
        return most
    entry_bytes = max(most.largest, most.entry_bytes * entries // most.entries)
    return Amount(entries + _OF_ONE_HASH, entry_bytes + _OF_ONE_HASH * most.largest, most.largest)


def _largest_piece(shard: Shard, *, kept: bool) -> int:
    """Bytes of the longest piece of space where the volume does not grow; with `kept` of the reserve too."""
    superblock = shard.volume.superblock
    free = [each.length for each in superblock.extents if each.kind == KIND_FREE]
    pieces = [each.length for each in reserves_of(superblock, shard.number)] if kept else []
    usable = min(max(pieces, default=0), sum(pieces) - space.first_size(superblock.erase_block))
    return max([usable, *free], default=0)


def take_to_clean(
    shard: Shard, kind: type[TakeEmpty | TakeHashStore], size: int, *, kept: bool = True
) -> Extent:
    """An extent of `size` bytes for what takes the place of others; of the shard's reserve where there is no other.

    :param kept: it may be of the reserve

    DiskFullError where that does not suffice either.
    """
    volume = shard.volume
    try:
        superblock = volume.publish(kind(shard.number, size, kept=False), optional=True)
    except DiskFullError:
        block = volume.superblock.erase_block
        size = round_to_erase_blocks(size, block)
        pieces = [each.length for each in reserves_of(volume.superblock, shard.number)] if kept else []
        # A recovery can use an empty journal that was meant for copies, but no hash store.
        left = 0 if kind is TakeEmpty else space.first_size(block)
        if volume.poisoned or max(pieces, default=0) < size or sum(pieces) < size + left:
            raise
        superblock = volume.publish(kind(shard.number, size, kept=True))
    return space.taken_by(superblock, shard.number)


def filled(part: Extent) -> Filled:
    """How a change of the superblock names what was filled."""
    assert part.part is not None
    return Filled(part.id, part.length, part.part)


def give_back(shard: Shard, extent: Extent) -> None:
    """Give an extent back that was taken and is not needed; what fails then leaves it to the next opening."""
    if shard.volume.poisoned is None:
        try:
            shard.volume.publish(Give(shard.number, extent.id))
        except SiltstoneError:
            return


@contextmanager
def switching(shard: Shard) -> Iterator[None]:
    """Let lookups, and then the superblock, go by what was made of some extents; whatever stops that stops the shard.

    What the index names and what the superblock says differ meanwhile. Either would do for an opening, but the two
    do not go together any more: nothing may be packed, incarnated or merged after that.
    """
    try:
        yield
    except SiltstoneError as error:
        # The medium may or may not have it, and says the same either way.
        shard.refuse(error.to_keep())
        raise
    except BaseException as error:
        shard.refuse(shard.interrupted(error))
        raise
