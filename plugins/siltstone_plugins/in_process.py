"""Shard host ``in_process``: the shards in the process that opens the store, and a thread that keeps house."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from siltstone.errors import ClosedError
from siltstone.lookup.reader import Reader
from siltstone.plugin import hookimpl
from siltstone.plugin.hosting import IN_PROCESS, Hosting, ShardFigures, ShardHost, ShardHostType
from siltstone.shard.changes import CleanClose
from siltstone.shard.group import ShardGroup
from siltstone.shard.opening import open_shards
from siltstone.threads import Wakeup, start_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

#: seconds between looks at what is due
_TICK_SECONDS: Final = 0.25


class InProcessHost(ShardHost):
    """See :class:`siltstone.plugin.hosting.ShardHost`; `group` holds the shards."""

    def __init__(self, hosting: Hosting) -> None:
        self._volume = hosting.volume
        numbers = range(hosting.volume.superblock.shards)
        self._is_ending = False
        self._wakeup = Wakeup()
        shards, recoveries = open_shards(hosting.volume, numbers, hosting.opening, clean=hosting.clean)
        self.recoveries = recoveries
        self.group = ShardGroup(hosting.volume, shards, self._wakeup.tell, hosting.opening.on_full)
        self._reader: Reader | None = Reader([shard.store.index for shard in shards])
        self._keeper = threading.Thread(target=self._keep_house, name="siltstone-housekeeper", daemon=True)
        # What a checkpoint has of the indexes is brought into memory while the first callers are served.
        self._wakeup.tell()
        start_thread(self._keeper)

    @property
    def reader(self) -> Reader:
        """Looks up keys; a lookup that runs while the store closes finishes on what it holds."""
        reader = self._reader
        if reader is None:
            raise ClosedError(f"{self._volume.backend.url}: the store is closed", what="store")
        return reader

    def append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> None:
        self.group.append(streams)

    def try_append(self, shard: int, stream: NDArray[np.uint8], records: int) -> bool:
        return self.group.try_append(shard, stream, records)

    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return self.group.delete(shard, kind, keys)

    def tidy(self, *, incarnate: bool) -> None:
        begin = True
        while self.group.upkeep.tidy(incarnate=incarnate, begin=begin):
            begin = False

    def flush(self) -> None:
        self.group.flush()

    def records(self) -> int:
        return sum(shard.store.records for shard in self.group.shards.values())

    def figures(self) -> tuple[ShardFigures, ...]:
        return self.group.figures()

    # ---- life

    def _keep_house(self) -> None:
        while not self._is_ending:
            self._wakeup.wait(_TICK_SECONDS)
            if not self._is_ending:
                self.group.tick()

    def end_housekeeping(self) -> None:
        """Let the thread that keeps house end."""
        self._is_ending = True
        self._wakeup.tell()
        self._keeper.join()

    def close(self) -> None:
        try:
            self.end_housekeeping()
            self._volume.publish(CleanClose(self.group.end()))
        finally:
            self._release()

    def abandon(self) -> None:
        self.end_housekeeping()
        self._release()

    def _release(self) -> None:
        """Let go of the shards, and with the last lookup that runs of the maps of their journals."""
        self._reader = None
        self.group.release()


@hookimpl
def siltstone_shard_hosts() -> Iterable[ShardHostType]:
    """Yield the host for ``workers = 0``."""
    yield ShardHostType(name=IN_PROCESS, open=InProcessHost)
