"""The volume as a worker sees it: its own descriptors to the medium, the core's superblock."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from siltstone.errors import SiltstoneError, StateError
from siltstone.format.superblock_slot import decode_slot
from siltstone.volume.ports import Ports
from siltstone.volume.volume import check_poison, check_process
from siltstone_workers.change_values import change_to_wire
from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.superblock_values import difference_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.format.superblock import Extent, Superblock
    from siltstone.volume.backend import Backend
    from siltstone_workers.calls import Calls


class WorkerVolume:
    """See :class:`siltstone.volume.shard_volume.ShardVolume`.

    :param backend: attached under the core's lock
    :param calls: to the core, who writes all superblocks
    """

    def __init__(self, backend: Backend, calls: Calls) -> None:
        self.backend = backend
        self.ports = Ports()
        self._calls = calls
        self._superblock: Superblock | None = None
        self._cause: SiltstoneError | None = None
        self.flushes_failed = 0
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._process = os.getpid()

    @property
    def superblock(self) -> Superblock:
        """What the core sent last; the worker's own extents change by its own doing alone."""
        if self._superblock is None:
            raise StateError("the worker has no superblock yet", what="superblock", state="unknown")
        return self._superblock

    def take_superblock(self, slot: memoryview | None) -> None:
        """Begin with a superblock that the core sent."""
        found = None if slot is None else decode_slot(bytes(slot), self.backend.url)
        if found is None:
            raise ProtocolError("the core sent no superblock", rule="superblock", value=None)
        self._take(found.superblock)

    def _take(self, superblock: Superblock) -> None:
        """Take over a superblock, unless another thread got a newer one meanwhile."""
        with self._lock:
            if self._superblock is None or superblock.sequence > self._superblock.sequence:
                self._superblock = superblock

    @property
    def poisoned(self) -> SiltstoneError | None:
        """Why nothing is made durable any more, or None."""
        return self._cause

    def extent(self, number: int) -> Extent:
        """The extent with this id, as it is now."""
        return self.superblock.extent(number)

    def publish(self, change: Callable[[Superblock], Superblock], *, optional: bool = False) -> Superblock:
        """Ask the core to apply a change and write the result; the superblock as it is then."""
        value = change_to_wire(change)  # type: ignore[arg-type] # shards have no others
        before = self.superblock
        error, bulk = self._calls.call(Kind.PUBLISH, optional, before.sequence, bulk=pack_value(value))
        if error is not None:
            cause = None if bulk is None else error_from_wire(unpack_value(bulk))
            if cause is not None:
                self._cause = self._cause or cause
            raise error
        after = difference_from_wire(before, unpack_value(bulk))
        self._take(after)
        return after

    def flush(self, *, shared: bool = False) -> None:
        """Flush what this process wrote, through its own descriptor: its failures are told to it alone."""
        self.check_process()
        with self._flush_lock:
            check_poison(self.backend.url, self._cause)
            try:
                self.backend.flush()
            except SiltstoneError as error:
                self.flushes_failed += 1
                if not shared:
                    self._cause = error.to_keep()
                raise

    def check_process(self) -> None:
        """StateError in a process that a plugin forked from the worker."""
        check_process(self.backend.url, self._process)
