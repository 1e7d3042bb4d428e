"""Fills an extent with a hash store: takes the space, sorts or merges, writes, makes it durable."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, MediumError, SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import journal_key
from siltstone.hash_store.builder import HashStoreBuilder
from siltstone.hash_store.extent import plan
from siltstone.shard import space
from siltstone.shard.changes import Filled, Give, TakeEmpty, TakeHashStore
from siltstone.volume.allocator import reserves_of, round_to_erase_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume


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


def fill_hash_store(
    shard: Shard, chunks: Iterable[NDArray[np.uint8]], entries: int, entry_bytes: int, largest: int
) -> Extent | None:
    """Write packed entries, ascending by hash, as a hash store; its extent, named `empty`, or None for no entries.

    The extent that is returned has the length that it needs; what it was planned with is its own until it is published.
    Written, not flushed. DiskFullError where there is no space for it; its extent is given back where anything fails.

    :param entries: how many at most, of `entry_bytes` in all at most, none larger than `largest` [bytes]
    """
    volume, clusters = shard.volume, plan(entries, entry_bytes, largest)
    extent = take_to_clean(shard, TakeHashStore, clusters * CLUSTER_SIZE)
    try:
        builder = HashStoreBuilder(
            journal_key(volume.superblock.uuid, extent.id, extent.generation),
            extent.generation,
            shard.store.types,
            volume.superblock.uuid,
            lambda offset, data: volume.backend.write(extent.offset + offset, data),
            entries_max=entries,
            clusters=clusters,
        )
        for chunk in chunks:
            builder.add(chunk)
        if builder.entries:
            size = builder.finish().clusters * CLUSTER_SIZE
            # Less than was planned where keys came several times, or were deleted.
            return replace(extent, length=round_to_erase_blocks(size, volume.superblock.erase_block))
    except BaseException:
        give_back(shard, extent)
        raise
    give_back(shard, extent)
    return None


def take_to_clean(shard: Shard, kind: type[TakeEmpty | TakeHashStore], size: int) -> Extent:
    """An extent of `size` bytes for what takes the place of others; of the shard's reserve where there is no other.

    DiskFullError where that does not suffice either.
    """
    volume = shard.volume
    try:
        superblock = volume.publish(kind(shard.number, size, kept=False), optional=True)
    except DiskFullError:
        block = volume.superblock.erase_block
        size = round_to_erase_blocks(size, block)
        kept = [each.length for each in reserves_of(volume.superblock, shard.number)]
        # A recovery can use an empty journal that was meant for copies, but no hash store.
        left = 0 if kind is TakeEmpty else space.first_size(block)
        if volume.poisoned or max(kept, default=0) < size or sum(kept) < size + left:
            raise
        superblock = volume.publish(kind(shard.number, size, kept=True))
    return space.taken_by(superblock, shard.number)


def filled(extent: Extent | None) -> Filled | None:
    """How a change of the superblock names what was filled."""
    return None if extent is None else Filled(extent.id, extent.length)


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
