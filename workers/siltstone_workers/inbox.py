"""How the threads of a worker share the reading of its pipe: whoever waits reads, and hands on what is for others."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from siltstone_workers.awake import Awake
from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.messages import Kind, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver
    from siltstone_workers.sender import Sender

#: what a call is answered with where nobody has answered yet
_UNANSWERED: Final = object()
#: behind a message with so much bulk the next is not looked for without sleep: whoever sends that much at a time has
#: better use for the processor [bytes]
_LONG_BYTES: Final = 32 * 1024


class Inbox:
    """Messages of the core, sorted: requests in order, answers to those who asked, credit.

    A thread of its own for reading would cost a switch of threads for every request; and a worker's main thread
    alone must not read, since it may wait for a lock whose holder waits for an answer.

    :param receiver: of what the core sends
    :param sender: of what is not an answer
    """

    def __init__(self, receiver: Receiver, sender: Sender) -> None:
        self._receiver = receiver
        self._sender = sender
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for the one that reads
        self._someone_reads = False
        self._requests: deque[Message] = deque()
        self._answers: dict[int, Any] = {}
        self._ids = itertools.count(1)
        self._credit = sender.window
        self._ended: BaseException | None = None
        self._awake = Awake()
        self._streams = False  # the last message was long: nobody waits for what becomes of each

    def next_request(self, timeout: float) -> Message | None:
        """The next message that is no answer; None where none came within `timeout` seconds, 0 to look only.

        One thread at a time may ask for them.
        """
        if not self._requests:
            self._wait(self._has_request, timeout)
        return self._requests.popleft() if self._requests else None

    @property
    def has_more(self) -> bool:
        """Whether something has been read already that nobody has been given."""
        return bool(self._requests) or self._receiver.has_buffered

    def _has_request(self) -> bool:
        return bool(self._requests)

    def call(self, kind: Kind, *items: Any, bulk: Buffer | None = None) -> tuple[Any, memoryview | None]:
        """Ask the core and wait: (error as it was sent or None, bulk of the answer)."""
        request = next(self._ids)
        with self._lock:
            self._answers[request] = _UNANSWERED
        try:
            self._sender.send([kind, request, *items], bulk)
            self._wait(lambda: self._answers[request] is not _UNANSWERED, None)
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

        self._wait(take, None)
        self._sender.send(fields, bulk)

    # ---- inside

    def _wait(self, done: Callable[[], bool], timeout: float | None) -> None:
        """Return once `done`, read under the lock, or the time is over; read the pipe where nobody does."""
        deadline = time.monotonic() + timeout if timeout else 0.0
        left = timeout
        while True:
            with self._lock:
                while not self._is_over(done):
                    if not self._someone_reads:
                        self._someone_reads = True
                        break
                    if left is not None and left <= 0:
                        return
                    self._sleep(left)
                    left = None if timeout is None else deadline - time.monotonic()
                else:
                    return
            if self._read(left, done) or timeout == 0:
                return
            if timeout is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return

    def _is_over(self, done: Callable[[], bool]) -> bool:
        """Whether what is waited for is here; raises where it will not come."""
        if done():
            return True
        if self._ended is not None:
            raise self._ended
        return False

    def _sleep(self, seconds: float | None) -> None:
        self._waiting += 1
        try:
            self._condition.wait(seconds)
        finally:
            self._waiting -= 1

    def _read(self, timeout: float | None, done: Callable[[], bool]) -> bool:
        """Read one message, for whoever it is; whether it was what is waited for."""
        message: Message | None = None
        ended: BaseException | None = None
        try:
            if timeout == 0 or self._streams:
                # A look alone says nothing of how long they take, nor does what comes in a stream.
                message = self._receiver.receive(timeout)
            else:
                begin = time.monotonic()
                message = self._receiver.receive(timeout, awake=self._awake.seconds)
                self._awake.took(time.monotonic() - begin)
            if message is not None:
                self._streams = message.bulk is not None and len(message.bulk) >= _LONG_BYTES
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
            self._requests.append(message)
