"""Lookups in the indexes that workers write: which of them are there now, and what a lookup does that meets none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import ClosedError, ShardAwayError
from siltstone.index.view import AwayIndex
from siltstone.lookup.reader import Reader
from siltstone_workers.stuck import StuckShards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from siltstone.index.mapped import MappedIndex
    from siltstone.index.pending import Pending
    from siltstone.index.types import KeyTypes
    from siltstone_workers.keeper import Keeper


class Lookups:
    """The reader of a store with workers, made anew whenever one of them comes or goes.

    A lookup that runs meanwhile finishes with the reader that it began with. Changes are the household's, under its
    lock.

    :param shards: how many there are
    :param types: which entry types have keys
    :param uuid: of the volume
    :param keeper_of: whose a shard is
    :param deadline: how long a worker may leave its index in the middle of a change [seconds]
    """

    def __init__(
        self,
        shards: int,
        types: KeyTypes,
        uuid: bytes,
        keeper_of: Callable[[int], Keeper],
        deadline: float,
    ) -> None:
        self._away: MappedIndex = AwayIndex(types, uuid)
        self._indexes: list[MappedIndex] = [self._away] * shards
        self._keeper_of = keeper_of
        self._deadline = deadline
        self._is_closed = False
        self._reader: Reader | None = None
        self._stuck_shards = StuckShards()

    @property
    def reader(self) -> Reader:
        """The reader as of now; ClosedError where there is none."""
        reader = self._reader
        if reader is None:
            raise ClosedError("the store is closed", what="store")
        return reader

    def show(self, indexes: Mapping[int, MappedIndex]) -> None:
        """These shards are served from here on."""
        for shard, index in indexes.items():
            self._indexes[shard] = index
            self._stuck_shards.forget(shard)

    def hide(self, shards: Iterable[int]) -> None:
        """Nobody serves these shards any more."""
        for shard in shards:
            self._indexes[shard] = self._away

    def is_shown(self, shard: int) -> bool:
        """Whether somebody serves a shard."""
        return self._indexes[shard] is not self._away

    def renew(self, pending: Mapping[int, Pending]) -> None:
        """Make the reader of what is there now, and of what is on its way there."""
        if self._is_closed:
            return
        indexes = tuple(self._indexes)
        self._reader = Reader(
            indexes,
            [pending.get(shard) for shard in range(len(indexes))],
            lambda shard: self._stuck(shard, indexes[shard]),
        )

    def close(self) -> None:
        """Let go of everything, with the last lookup that runs."""
        # A keeper that was held up may still come to say that its worker is away.
        self._is_closed = True
        self._reader = None
        self._indexes = [self._away] * len(self._indexes)

    def _stuck(self, shard: int, index: MappedIndex) -> None:
        """A lookup met a change in this index that goes on for long: look again, unless its worker is away or hangs."""
        keeper = self._keeper_of(shard)
        process = keeper.serving(shard)
        if index is self._away or index not in self._indexes:
            # It began when the worker was away, or looks into what a dead one left: no change there ever ends.
            raise keeper.away(shard)
        if self._stuck_shards.met(shard) > self._deadline:
            process.kill(f"it left its index in the middle of a change for {self._deadline:g} s")
            raise ShardAwayError(
                f"shard {shard}: worker {keeper.number} hangs and is being replaced; nothing was done",
                shard=shard,
                worker=keeper.number,
            )
        self._stuck_shards.wait()
