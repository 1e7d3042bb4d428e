"""What checkpoints change in the superblock; see :mod:`siltstone.shard.changes`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from siltstone.format.superblock import CLOSED, EMPTY, KIND_CHECKPOINT
from siltstone.shard import space
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock

#: bytes of the largest checkpoint: what an index of 1024 journals can hold, and far more
CHECKPOINT_SIZE_MAX: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class TakeCheckpoints:
    """Take an extent for a checkpoint of each of some shards: (shard, bytes)."""

    wanted: tuple[tuple[int, int], ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        for shard, size in self.wanted:
            superblock, extent = allocator.take(superblock, size, CHECKPOINT_SIZE_MAX)
            taken = replace(
                extent,
                kind=KIND_CHECKPOINT,
                shard=shard,
                state=EMPTY,
                generation=superblock.sequence,
                order=0,
                end=None,
            )
            superblock = superblock.with_extents(taken)
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {shard for shard, _size in self.wanted}


@dataclass(frozen=True, slots=True)
class PublishCheckpoints:
    """Let checkpoints count that are written and durable, (shard, extent), and free those before them."""

    written: tuple[tuple[int, int], ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        for shard, number in self.written:
            extent = space.owned(superblock, shard, number, EMPTY, KIND_CHECKPOINT)
            before = allocator.checkpoint_of(superblock, shard)
            if before is not None:
                superblock = allocator.give(superblock, before.id)
            superblock = superblock.with_extents(replace(extent, state=CLOSED))
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {shard for shard, _extent in self.written}


@dataclass(frozen=True, slots=True)
class GiveCheckpoints:
    """Give the extents of checkpoints back that could not be written: (shard, extent)."""

    given_up: tuple[tuple[int, int], ...]

    def __call__(self, superblock: Superblock) -> Superblock:
        for shard, number in self.given_up:
            space.owned(superblock, shard, number, EMPTY, KIND_CHECKPOINT)
            superblock = allocator.give(superblock, number)
        return superblock

    def shards(self, superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {shard for shard, _extent in self.given_up}
