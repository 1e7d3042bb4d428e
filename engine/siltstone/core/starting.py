"""Shards of a store that was closed cleanly, while whoever is to run them is still starting.

Lookups need not wait for that: what the superblock names is on the medium, and stays as it is until something is put.
Everything else waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from siltstone.errors import SiltstoneError
from siltstone.format.superblock import ACTIVE, CLOSED, Extent
from siltstone.lookup.reader import Reader
from siltstone.plugin.hosting import ShardHost
from siltstone.shard.opening import open_shards_read_only
from siltstone.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.index.types import Bytes
    from siltstone.log_store.log_store import LogStore
    from siltstone.plugin.hosting import ShardFigures, WorkerInfo
    from siltstone.shard.opening import OpenOptions
    from siltstone.volume.volume import Volume

#: so much is replayed for the first lookups; where it is more, they may as well wait for those who replay it anyway
_REPLAY_MAX: Final = 4 << 20

_R = TypeVar("_R")


class EarlyReader(Reader):
    """Looks up keys in what a clean close left, and where that may have changed meanwhile, in the host's reader.

    A lookup counts if it ended before anything could be put, and before the superblock gave up an extent: nothing that
    it read was written to until then.

    :param stores: the log stores, replayed for reading only
    :param volume: theirs
    :param starting: what they are there for
    """

    def __init__(self, stores: list[LogStore], volume: Volume, starting: StartingShards) -> None:
        super().__init__([store.index for store in stores])
        self._volume = volume
        self._starting = starting
        self._seen = volume.superblock
        self._extents = [extent for extent in self._seen.extents if extent.state in (ACTIVE, CLOSED)]

    def get(self, kind: int, key: Bytes) -> Any:
        """See :class:`Reader`."""
        return self._either(lambda: Reader.get(self, kind, key), lambda reader: reader.get(kind, key))

    def get_many(
        self, kind: int, keys: NDArray[np.uint8], payload_size: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """See :class:`Reader`."""
        return self._either(
            lambda: Reader.get_many(self, kind, keys, payload_size),
            lambda reader: reader.get_many(kind, keys, payload_size),
        )

    def _either(self, early: Callable[[], _R], later: Callable[[Reader], _R]) -> _R:
        try:
            found = early()
        except SiltstoneError:
            if self._counts():
                raise
        else:
            if self._counts():
                return found
        return later(self._starting.host.reader)

    def _counts(self) -> bool:
        superblock = self._volume.superblock
        if superblock is not self._seen:
            there: dict[int, Extent] = {extent.id: extent for extent in superblock.extents}
            for extent in self._extents:
                now = there.get(extent.id)
                if now is None or (now.kind, now.generation) != (extent.kind, extent.generation):
                    return False
            self._seen = superblock
        # Last: who puts waits until the host is there.
        return not self._starting.is_open


class StartingShards(ShardHost):
    """Stands for a host until it is there. Threads may share it.

    :param volume: its volume, clean
    :param opening: how its shards are opened
    """

    def __init__(self, volume: Volume, opening: OpenOptions) -> None:
        self._volume = volume
        numbers = range(volume.superblock.shards)
        stores, recoveries = open_shards_read_only(volume, numbers, opening, bytes_max=_REPLAY_MAX)
        self.recoveries = tuple(recoveries)
        self._early: EarlyReader | None = EarlyReader(stores, volume, self) if stores else None
        #: held until it is known what became of it
        self._opening = threading.Lock()
        self._opening.acquire()
        self._host: ShardHost | None = None
        self._error: BaseException | None = None

    @property
    def can_read(self) -> bool:
        """Whether lookups are answered already; else there is nothing to gain."""
        return self._early is not None

    def start(self, begin: Callable[[], ShardHost], opened: Callable[[ShardHost], None]) -> None:
        """Open the host in a thread; `opened` gets it."""

        def run() -> None:
            try:
                self._host = begin()
                opened(self._host)
                self._early = None
            except BaseException as error:  # noqa: BLE001 - it is for those who wait
                self._error = error.to_keep() if isinstance(error, SiltstoneError) else error
            finally:
                self._opening.release()

        start_thread(threading.Thread(target=run, name="siltstone-starter", daemon=True))

    @property
    def is_open(self) -> bool:
        """Whether the host is there, so that something may have been put."""
        return self._host is not None

    @property
    def host(self) -> ShardHost:
        """The host, once it is there, or the error that it could not be opened for."""
        self._volume.check_process()
        with self._opening:
            pass
        if self._host is None:
            assert self._error is not None
            raise self._error.with_traceback(None)
        return self._host

    # ---- what a host does

    @property
    def reader(self) -> Reader:
        """Looks up keys, at once."""
        return self._early or self.host.reader

    def records(self) -> int:
        """Keys in the store, once the host is there."""
        return self.host.records()

    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, once the host is there."""
        return self.host.figures()

    def workers(self) -> tuple[WorkerInfo, ...]:
        """What is known of each worker process, once the host is there."""
        return self.host.workers()

    @property
    def losses(self) -> int:
        return 0 if self._host is None else self._host.losses

    def loss(self) -> SiltstoneError:
        return self.host.loss()

    @property
    def waits_for_others(self) -> bool:
        return True

    def append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> None:
        self.host.append(streams)

    def try_append(self, shard: int, stream: NDArray[np.uint8], records: int) -> bool:
        return self._host is not None and self._host.try_append(shard, stream, records)

    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return self.host.delete(shard, kind, keys)

    def tidy(self, *, incarnate: bool) -> None:
        self.host.tidy(incarnate=incarnate)

    def flush(self) -> None:
        self.host.flush()

    def close(self) -> None:
        """Close the host; its error where it could not be opened."""
        self._early = None
        self.host.close()

    def abandon(self) -> None:
        """End the host as if everything had died, if there is one."""
        with self._opening:
            pass
        self._early = None
        if self._host is not None:
            self._host.abandon()
