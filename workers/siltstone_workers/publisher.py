"""Writes the superblocks that workers ask for, one at a time, and none for a worker that is gone."""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

from siltstone.errors import SiltstoneError
from siltstone.threads import start_thread
from siltstone_workers.change_values import change_from_wire
from siltstone_workers.checks import expect
from siltstone_workers.errors import ProtocolError, error_to_wire
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.superblock_values import difference_to_wire

if TYPE_CHECKING:
    from collections.abc import Collection

    from siltstone.format.superblock import Superblock
    from siltstone.volume.volume import Volume
    from siltstone_workers.pipes import Message
    from siltstone_workers.process import WorkerProcess

#: so many superblocks that a worker was sent are remembered: it has one of them, however many threads of it ask
_SENT_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class _Request:
    process: WorkerProcess
    shards: Collection[int]
    message: Message


class Publisher:
    """A thread of its own, so that answers of a worker are read while space is made for it.

    :param volume: the core's
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._barred: WeakSet[WorkerProcess] = WeakSet()
        #: what each was answered with last: what changed since then is all that it need be told
        self._sent: WeakKeyDictionary[WorkerProcess, deque[Superblock]] = WeakKeyDictionary()
        self._thread = threading.Thread(target=self._run, name="siltstone-superblock", daemon=True)
        start_thread(self._thread)

    def submit(self, process: WorkerProcess, shards: Collection[int], message: Message) -> None:
        """A worker that owns `shards` asks for a change of the superblock."""
        self._requests.put(_Request(process, shards, message))

    def bar(self, process: WorkerProcess) -> None:
        """Write nothing more that this worker asked for; a write under way is over when this returns.

        A change of a worker that is gone must not come after the recovery of its shards began.
        """
        with self._lock:
            self._barred.add(process)

    def close(self) -> None:
        """End the thread."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            with self._lock:
                if request.process in self._barred:
                    continue
                self._serve(request)

    def _serve(self, request: _Request) -> None:
        number, _optional, base = expect(request.message.fields, int, bool, int)
        try:
            superblock = self._publish(request)
            sent = self._sent.setdefault(request.process, deque(maxlen=_SENT_MAX))
            known = next((each for each in sent if each.sequence == base), None)
            sent.append(superblock)
            bulk = pack_value(difference_to_wire(known, superblock))
        except SiltstoneError as error:
            poison = self._volume.poisoned
            cause = None if poison is None else pack_value(error_to_wire(poison))
            request.process.tell(Kind.REPLY, number, error_to_wire(error), bulk=cause, waited_for=True)
        except Exception as error:  # noqa: BLE001 - the worker is told, and the thread goes on for the others
            request.process.tell(Kind.REPLY, number, error_to_wire(error), waited_for=True)
        else:
            request.process.tell(Kind.REPLY, number, None, bulk=bulk, waited_for=True)

    def _publish(self, request: _Request) -> Superblock:
        _number, optional, _base = expect(request.message.fields, int, bool, int)
        change = change_from_wire(unpack_value(request.message.bulk))
        foreign = change.shards(self._volume.superblock) - set(request.shards)
        if foreign:
            raise ProtocolError(
                f"a change of shards {sorted(foreign)}, which are another worker's",
                rule="own shards",
                value=min(foreign),
            )
        return self._volume.publish(change, optional=optional)
