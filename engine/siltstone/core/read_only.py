"""The shards of a store that is open for reading only: what recovery found, and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import ClosedError
from siltstone.lookup.reader import Reader
from siltstone.plugin.hosting import OpenShards
from siltstone.shard.figures import ShardFigures
from siltstone.shard.opening import open_shards_read_only

if TYPE_CHECKING:
    from siltstone.shard.opening import OpenOptions
    from siltstone.volume.volume import Volume


class ReadOnlyShards(OpenShards):
    """Replayed shards that take nothing. Threads may share it."""

    def __init__(self, volume: Volume, opening: OpenOptions) -> None:
        self._url = volume.backend.url
        numbers = range(volume.superblock.shards)
        self._stores, recoveries = open_shards_read_only(volume, numbers, opening)
        self.recoveries = tuple(recoveries)
        self._reader: Reader | None = Reader([store.index for store in self._stores])

    @property
    def reader(self) -> Reader:
        """Looks up keys in all shards."""
        reader = self._reader
        if reader is None:
            raise ClosedError(f"{self._url}: the store is closed", what="store")
        return reader

    def records(self) -> int:
        """Keys in the store."""
        return sum(store.records for store in self._stores)

    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, in the order of their numbers."""
        ends = {found.shard: found for found in self.recoveries}
        return tuple(
            ShardFigures(
                number,
                store.records,
                store.size.records,
                store.memory,
                ends[number].journal if number in ends else None,
                ends[number].end.position if number in ends else None,
                store.dead,
            )
            for number, store in enumerate(self._stores)
        )

    def close(self) -> None:
        """Let go of the journals, with the last lookup that runs."""
        self._reader = None
        self._stores = []

    def abandon(self) -> None:
        """As :meth:`close`: nothing was written."""
        self.close()
