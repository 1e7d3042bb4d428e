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

    from siltstone_workers.channel import Message, Receiver, Sender

#: what a call is answered with where nobody has answered yet
_UNANSWERED: Final = object()


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
        self._condition = threading.Condition()
        self._someone_reads = False
        self._requests: deque[Message] = deque()
        self._answers: dict[int, Any] = {}
        self._ids = itertools.count(1)
        self._credit = sender.window
        self._ended: BaseException | None = None
        self._awake = Awake()

    def next_request(self, timeout: float) -> Message | None:
        """The next message that is no answer; None where none came within `timeout` seconds, 0 to look only."""
        self._wait(lambda: bool(self._requests), timeout)
        with self._condition:
            return self._requests.popleft() if self._requests else None

    def call(self, kind: Kind, *items: Any, bulk: Buffer | None = None) -> tuple[Any, memoryview | None]:
        """Ask the core and wait: (error as it was sent or None, bulk of the answer)."""
        request = next(self._ids)
        with self._condition:
            self._answers[request] = _UNANSWERED
        try:
            self._sender.send([kind, request, *items], bulk)
            self._wait(lambda: self._answers[request] is not _UNANSWERED, None)
        finally:
            with self._condition:
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
        """Return once `done`, read under the condition, or the time is over; read the pipe where nobody does."""
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while True:
            with self._condition:
                while (
                    not done() and self._someone_reads and self._ended is None and (left is None or left > 0)
                ):
                    self._condition.wait(left)
                    left = None if deadline is None else deadline - time.monotonic()
                if done():
                    return
                if self._ended is not None:
                    raise self._ended
                if self._someone_reads:
                    return
                self._someone_reads = True
            self._read(left)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                with self._condition:
                    if self._ended is not None and not done():
                        raise self._ended
                return

    def _read(self, timeout: float | None) -> None:
        message: Message | None = None
        ended: BaseException | None = None
        try:
            begin = time.monotonic()
            message = self._receiver.receive(timeout, awake=self._awake.seconds)
            if timeout != 0:
                # Else it only looked whether there is one.
                self._awake.took(time.monotonic() - begin)
        except BaseException as error:  # noqa: BLE001 - every thread that waits is told
            ended = error
        with self._condition:
            self._someone_reads = False
            self._ended = self._ended or ended
            try:
                if message is not None:
                    self._deliver(message)
            except ProtocolError as error:
                self._ended = error
            self._condition.notify_all()

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
