"""Who waits for which answer of a worker. Those who wait read the pipe of answers themselves, one at a time.

A thread that reads for all of them would cost every answer two more switches of threads.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Final

from siltstone_workers.checks import expect
from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError
from siltstone_workers.waiting import Awake

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.errors import SiltstoneError
    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver

_REPLY: Final = int(Kind.REPLY)


class Answer:
    """What one request is answered with: an error or the bulk, once it has arrived; `asked` is when [seconds]."""

    __slots__ = ("asked", "bulk", "error", "has_arrived", "request")

    def __init__(self, request: int) -> None:
        self.request = request
        self.asked = time.monotonic()
        self.has_arrived = False
        self.error: SiltstoneError | None = None
        self.bulk: memoryview | None = None


class Answers:
    """The answers of one worker process.

    :param receiver: of the pipe that carries them
    :param pidfd: readable once the process is gone, whoever else may have its end of the pipe
    :param heard: gets what the worker says of its progress with each answer, which may break a rule
    :param broken: called with what broke a rule; the process is to be ended
    """

    def __init__(
        self,
        receiver: Receiver,
        pidfd: int,
        heard: Callable[[int, object], None],
        broken: Callable[[ProtocolError], None],
    ) -> None:
        self._receiver = receiver
        self._heard = heard
        self._broken = broken
        self._ids = itertools.count(1)
        self._expected: dict[int, Answer] = {}
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for the one that reads
        self._someone_reads = False
        self._is_over = False  # nothing more can be read; who waits is told by `end`
        self._error: Callable[[], SiltstoneError] | None = None
        self._pidfd = pidfd
        self._awake = Awake()

    def expect(self) -> Answer:
        """An answer that somebody will wait for; its `request` goes with the question."""
        answer = Answer(next(self._ids))
        with self._lock:
            if self._error is not None:
                raise self._error()
            self._expected[answer.request] = answer
        return answer

    def wait(self, answer: Answer, seconds: float) -> bool:
        """Whether the answer is here within `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                while not answer.has_arrived and (self._someone_reads or self._is_over):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._sleep(left):
                        return answer.has_arrived
                if answer.has_arrived:
                    return True
                self._someone_reads = True
            try:
                in_time = self._read_until(answer, deadline)
            finally:
                with self._lock:
                    self._someone_reads = False
                    self._wake()
            if answer.has_arrived or not in_time:
                return answer.has_arrived

    def _sleep(self, seconds: float | None = None) -> bool:
        """Wait, with the lock, until something has changed; False where nothing did in time."""
        self._waiting += 1
        try:
            return self._condition.wait(seconds)
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        """Something has changed: wake, with the lock, whoever waits. Most of the time nobody does."""
        if self._waiting:
            self._condition.notify_all()

    def end(self, error: Callable[[], SiltstoneError]) -> None:
        """The process is gone: everybody who waits, or will, gets an error of his own."""
        with self._lock:
            self._is_over = True
            self._error = error
            for answer in self._expected.values():
                answer.error, answer.has_arrived = error(), True
            self._expected.clear()
            self._wake()

    def settle(self) -> None:
        """Return once nobody reads the pipe any more, after :meth:`end`."""
        with self._lock:
            while self._someone_reads:
                self._sleep()

    # ---- reading

    def _read_until(self, answer: Answer, deadline: float) -> bool:
        """Read for everybody until one's own answer is here; False after the deadline, True also at the pipe's end."""
        while not answer.has_arrived and not self._is_over:
            if not self._receiver.has_buffered:
                left = max(0.0, deadline - time.monotonic())
                ready = self._awake.wait(self._receiver.reading, self._pidfd, left)
                if not ready:
                    return False
                if not ready & 1:
                    self._is_over = True
                    break
            try:
                # What is here and no more: the process may stop, or end, in the middle of a frame.
                message = self._receiver.receive(0.0)
                if message is not None:
                    self._take(message)
            except (ChannelClosedError, OSError):
                self._is_over = True
            except ProtocolError as error:
                self._is_over = True
                self._broken(error)
        return True

    def _take(self, message: Message) -> None:
        fields, bulk = message
        if fields[0] != _REPLY:
            raise ProtocolError(
                f"a message of kind {fields[0]} among the answers", rule="kind", value=fields[0]
            )
        request, error, number, shards = expect(fields, int, (list, None), int, list)
        found = None if error is None else error_from_wire(error)
        # First: who has an answer finds told what was dealt with before it.
        self._heard(number, shards)
        with self._lock:
            answer = self._expected.pop(request, None)
            if answer is None:
                raise ProtocolError(
                    f"an answer to {request}, which nobody asked", rule="answers", value=request
                )
            answer.error, answer.bulk, answer.has_arrived = found, bulk, True
            self._wake()
