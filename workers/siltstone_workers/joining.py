"""Looks into a store that another process has open with workers: indexes in shared memory, journals on the medium."""

from __future__ import annotations

import os
import socket
import threading
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from siltstone.errors import ClosedError, LockedError, ShardAwayError, ShardStoppedError, SiltstoneError
from siltstone.index.view import AwayIndex, IndexView
from siltstone.log_store.memory import IndexSize
from siltstone.log_store.older_views import OlderViews
from siltstone.lookup.reader import Reader
from siltstone.plugin.hosting import OpenShards, WorkerInfo
from siltstone.shard.figures import ShardFigures
from siltstone.threads import start_thread
from siltstone_workers.errors import ProtocolError
from siltstone_workers.frames import unpack_value
from siltstone_workers.keeper import State
from siltstone_workers.memory import WorkerMemory
from siltstone_workers.sharing import DESCRIPTORS_MAX, PACKET_MAX, SHARING_VERSION, address, peer_user
from siltstone_workers.stuck import StuckShards
from siltstone_workers.usage import with_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from siltstone.index.mapped import MappedIndex
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.plugin.hosting import Joining

#: how long whoever has the store open may take to answer [seconds]
_PATIENCE: Final = 5.0
_INT_SIZE: Final = array("i").itemsize
#: how long a worker may leave its index in the middle of a change before a lookup gives up [seconds]
_STUCK_SECONDS_MAX: Final = 30.0


def join(joining: Joining) -> JoinedShards | None:
    """The shards of a store that another process shares, or None where nobody does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(address(joining.volume.superblock.uuid))
        # Anybody may take a name: what another user says of the memory to look into is not believed.
        if peer_user(connection) not in (os.geteuid(), 0):
            connection.close()
            return None
        shards = JoinedShards(joining, connection)
    except OSError:
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return shards


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The next packet and its descriptors, none of which a program that is started here inherits.

    ``socket.recv_fds`` passes no flags on.
    """
    data, ancillary, flags, _address = connection.recvmsg(
        PACKET_MAX, socket.CMSG_SPACE(DESCRIPTORS_MAX * _INT_SIZE), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _INT_SIZE])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        # Also where this process may not have so many descriptors.
        _close(descriptors)
        raise ProtocolError("a description of workers that was cut short", rule="description", value=None)
    return data, list(descriptors)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class JoinedShards(OpenShards):
    """What the workers of another process serve, for lookups alone.

    It sees what they have taken over; at the latest what a flush that returned there covers.
    """

    recoveries: tuple[JournalRecovery, ...] = ()

    def __init__(self, joining: Joining, connection: socket.socket) -> None:
        self._joining = joining
        self._connection = connection
        self._shards = joining.volume.superblock.shards
        self._away = AwayIndex(joining.types, joining.volume.superblock.uuid)
        self._ended: SiltstoneError | None = None
        self._told: dict[str, Any] = {}
        self._reader: Reader | None = None
        self._indexes: tuple[MappedIndex, ...] = ()
        told, descriptors = self._receive()
        mine = joining.volume.backend.identity()
        if mine is None or told.get("medium") != mine:
            # A copy of the volume, with the same uuid: its indexes would answer for other records.
            _close(descriptors)
            raise ConnectionRefusedError
        self._take(told, descriptors)
        connection.settimeout(None)
        self._thread = threading.Thread(target=self._listen, name="siltstone-joined", daemon=True)
        start_thread(self._thread)

    # ---- what the other process tells

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        data, descriptors = _receive(self._connection)
        try:
            if not data:
                raise ConnectionResetError
            value = unpack_value(memoryview(data))
            if not isinstance(value, dict) or value.get("version") != SHARING_VERSION:
                raise ProtocolError(
                    "whoever has the store open is of another release", rule="version", value=None
                )
            if "refused" in value:
                url = self._joining.volume.backend.url
                raise LockedError(
                    f"{url}: the process that has it open takes no reader: {value['refused']}",
                    url=url,
                    holder="unknown",
                )
        except BaseException:
            _close(descriptors)
            raise
        return value, descriptors

    def _take(self, told: dict[str, Any], descriptors: list[int]) -> None:
        """Look into the indexes that are there now."""
        indexes: list[MappedIndex] = [self._away] * self._shards
        try:
            for worker in told["workers"]:
                if not worker["serves"]:
                    continue
                sizes = [IndexSize(*map(int, size)) for size in worker["sizes"]]
                index, mirrors = descriptors[:2]
                descriptors = descriptors[2:]
                memory = WorkerMemory.received(index, mirrors, sizes)
                for place, shard in enumerate(worker["shards"]):
                    indexes[shard] = self._view(memory, place, mirrored=bool(worker["mirrored"]))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ProtocolError(
                f"no description of workers: {error!r}", rule="description", value=None
            ) from error
        finally:
            _close(descriptors)
        self._told = told
        self._indexes = found = tuple(indexes)
        stuck = StuckShards()
        self._reader = Reader(found, None, lambda shard: self._stuck(shard, found, stuck))

    def _view(self, memory: WorkerMemory, place: int, *, mirrored: bool) -> IndexView:
        backend, size = self._joining.volume.backend, memory.sizes[place]

        def map_journal(number: int, offset: int, length: int) -> Buffer:
            view = memory.mirrors_of(place).map(number, length) if mirrored else backend.map(offset, length)
            if view is None:
                raise ClosedError(f"{backend.url}: its journals cannot be mapped here", what="store")
            return view

        return IndexView(
            memory.map_index(place, writable=False),
            self._joining.types,
            self._joining.volume.superblock.uuid,
            size.segments,
            size.window_bytes,
            map_journal,
            OlderViews(backend, self._joining.volume.superblock.uuid, self._joining.types).open,
            self._joining.volume.superblock.uuid,
        )

    def _listen(self) -> None:
        error: SiltstoneError
        url = self._joining.volume.backend.url
        try:
            while True:
                self._take(*self._receive())
        except (OSError, ProtocolError):
            error = ClosedError(
                f"{url}: the process that had it open for writing has closed it or ended; open it again",
                what="store",
            )
        except SiltstoneError as refused:
            error = refused.to_keep()
        self._ended = error
        if self._reader is not None:
            self._indexes = ended = (self._away,) * self._shards
            self._reader = Reader(ended, None, lambda shard: self._stuck(shard, ended, StuckShards()))

    def _stuck(self, shard: int, indexes: tuple[MappedIndex, ...], stuck: StuckShards) -> None:
        """A lookup met a change that goes on for long: look again, unless nobody goes on with it."""
        if self._ended is not None:
            raise self._ended.to_keep()
        if indexes[shard] is self._away or self._indexes[shard] is not indexes[shard]:
            raise self._away_error(shard)
        if stuck.met(shard) > _STUCK_SECONDS_MAX:
            # Whoever writes there replaces a worker that hangs, once somebody there meets it: here nobody can.
            raise ShardAwayError(
                f"shard {shard}: its worker left its index in the middle of a change for {_STUCK_SECONDS_MAX:g} s",
                shard=shard,
                worker=self._worker(shard).get("number"),
            )
        stuck.wait()

    def _worker(self, shard: int) -> dict[str, Any]:
        """What was told last of the worker of a shard."""
        return next((worker for worker in self._told["workers"] if shard in worker["shards"]), {})

    def _away_error(self, shard: int) -> SiltstoneError:
        """Why a shard cannot be asked."""
        worker = self._worker(shard)
        number, cause = worker.get("number"), worker.get("last_error", "")
        if worker.get("state") == State.STOPPED.value:
            return ShardStoppedError(
                f"shard {shard}: worker {number} has ended ({cause}) and is not started again: whoever writes the"
                " store has to open it anew",
                shard=shard,
                worker=number,
                cause=cause,
            )
        return ShardAwayError(
            f"shard {shard}: worker {number} has ended ({cause}) and is being started again",
            shard=shard,
            worker=number,
        )

    # ---- what a store asks

    @property
    def reader(self) -> Reader:
        reader = self._reader
        if reader is None:
            raise ClosedError(f"{self._joining.volume.backend.url}: the store is closed", what="store")
        return reader

    def records(self) -> int:
        return sum(each.records for each in self.figures())

    def figures(self) -> tuple[ShardFigures, ...]:
        if self._ended is not None:
            raise self._ended.to_keep()
        limits = {
            shard: int(size[2])
            for worker in self._told["workers"]
            for shard, size in zip(worker["shards"], worker["sizes"], strict=True)
        }
        return tuple(
            ShardFigures(shard, index.keys, limits.get(shard, 0), index.bytes)
            for shard, index in enumerate(self._indexes)
        )

    def workers(self) -> tuple[WorkerInfo, ...]:
        return tuple(
            with_usage(
                WorkerInfo(
                    number=worker["number"],
                    pid=worker["pid"],
                    state=worker["state"],
                    shards=tuple(worker["shards"]),
                    restarts=worker["restarts"],
                    last_error=worker["last_error"],
                )
            )
            for worker in self._told["workers"]
        )

    def close(self) -> None:
        self._reader = None
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        # Again: it may have been in the middle of taking over what it was told.
        self._reader = None
        self._connection.close()
        self._indexes = ()

    def abandon(self) -> None:
        self.close()
