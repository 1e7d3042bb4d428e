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
from siltstone_workers.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.format.superblock import Extent, Superblock
    from siltstone.format.superblock_slot import Slot
    from siltstone.volume.backend import Backend
    from siltstone_workers.inbox import Inbox


class WorkerVolume:
    """See :class:`siltstone.volume.shard_volume.ShardVolume`.

    :param backend: attached under the core's lock
    :param inbox: to the core, who writes all superblocks
    """

    def __init__(self, backend: Backend, inbox: Inbox) -> None:
        self.backend = backend
        self.ports = Ports()
        self._inbox = inbox
        self._slot: Slot | None = None
        self._cause: SiltstoneError | None = None
        self.flushes_failed = 0
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._process = os.getpid()

    @property
    def superblock(self) -> Superblock:
        """What the core sent last; the worker's own extents change by its own doing alone."""
        if self._slot is None:
            raise StateError("the worker has no superblock yet", what="superblock", state="unknown")
        return self._slot.superblock

    def take_superblock(self, slot: memoryview | None) -> Superblock:
        """Take over a superblock that the core sent, unless a newer one came meanwhile; the one that was sent."""
        found = None if slot is None else decode_slot(bytes(slot), self.backend.url, earlier=self._slot)
        if found is None:
            raise ProtocolError("the core sent no superblock", rule="superblock", value=None)
        with self._lock:
            if self._slot is None or found.sequence > self._slot.sequence:
                self._slot = found
        return found.superblock

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
        error, bulk = self._inbox.call(Kind.PUBLISH, optional, bulk=pack_value(value))
        if error is not None:
            cause = None if bulk is None else error_from_wire(unpack_value(bulk))
            if cause is not None:
                self._cause = self._cause or cause
            raise error
        return self.take_superblock(bulk)

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
