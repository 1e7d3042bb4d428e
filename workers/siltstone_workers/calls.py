"""What the threads of a worker ask the core: whoever waits reads, and hands on what is for others.

A thread of its own for reading would cost a switch of threads for every answer. Answers have a pipe of their own: in
one with the requests, who waits for an answer would be woken by every request, and would hand it on to the thread that
it is for, which costs both a switch.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Final

from siltstone_workers.checks import expect
from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver
    from siltstone_workers.sender import Sender

#: what a call is answered with where nobody has answered yet
_UNANSWERED: Final = object()


class Calls:
    """Answers of the core to those who asked, and credit for what it is sent on. Any thread may ask.

    :param receiver: of what the core answers
    :param sender: of what it is asked
    """

    def __init__(self, receiver: Receiver, sender: Sender) -> None:
        self._receiver = receiver
        self._sender = sender
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for the one that reads
        self._someone_reads = False
        self._answers: dict[int, Any] = {}
        self._ids = itertools.count(1)
        self._credit = sender.window
        self._ended: BaseException | None = None

    def call(self, kind: Kind, *items: Any, bulk: Buffer | None = None) -> tuple[Any, memoryview | None]:
        """Ask the core and wait: (error as it was sent or None, bulk of the answer)."""
        request = next(self._ids)
        with self._lock:
            self._answers[request] = _UNANSWERED
        try:
            self._sender.send([kind, request, *items], bulk)
            self._wait(lambda: self._answers[request] is not _UNANSWERED)
        finally:
            with self._lock:
                answer = self._answers.pop(request)
        error, value = answer
        return None if error is None else error_from_wire(error), value

    def send_counted(self, fields: Sequence[Any], bulk: Buffer) -> None:
        """Send a message once the core has room for it."""
        size = memoryview(bulk).nbytes
        taken = False

        def take() -> bool:
            nonlocal taken
            if not taken and self._credit > 0:
                # The last one may take more than there is. Here and not later: another thread may have seen it too.
                self._credit -= size
                taken = True
            return taken

        self._wait(take)
        self._sender.send(fields, bulk)

    # ---- inside

    def _wait(self, done: Callable[[], bool]) -> None:
        """Return once `done`, read under the lock; read the pipe where nobody does."""
        while True:
            with self._lock:
                while not self._is_over(done):
                    if not self._someone_reads:
                        self._someone_reads = True
                        break
                    self._sleep()
                else:
                    return
            if self._read(done):
                return

    def _is_over(self, done: Callable[[], bool]) -> bool:
        """Whether what is waited for is here; raises where it will not come."""
        if done():
            return True
        if self._ended is not None:
            raise self._ended
        return False

    def _sleep(self) -> None:
        self._waiting += 1
        try:
            self._condition.wait()
        finally:
            self._waiting -= 1

    def _read(self, done: Callable[[], bool]) -> bool:
        """Read one message, for whoever it is; whether it was what is waited for."""
        message: Message | None = None
        ended: BaseException | None = None
        try:
            message = self._receiver.receive()
        except BaseException as error:  # noqa: BLE001 - every thread that waits is told
            ended = error
        with self._lock:
            self._someone_reads = False
            self._ended = self._ended or ended
            try:
                if message is not None:
                    self._deliver(message)
            except ProtocolError as error:
                self._ended = error
            if self._waiting:
                self._condition.notify_all()
            return self._is_over(done)

    def _deliver(self, message: Message) -> None:
        kind = message.fields[0]
        if kind == Kind.REPLY:
            request, error = expect(message.fields, int, (list, None))
            if self._answers.get(request) is not _UNANSWERED:
                raise ProtocolError(
                    f"an answer to {request}, which nobody asked", rule="answers", value=request
                )
            self._answers[request] = error, message.bulk
        elif kind == Kind.CREDIT:
            (credit,) = expect(message.fields, int)
            self._credit += credit
        else:
            raise ProtocolError(f"a message of kind {kind} among the answers", rule="kind", value=kind)
