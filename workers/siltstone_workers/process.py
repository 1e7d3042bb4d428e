"""One worker process as the core sees it: how it is started, asked, listened to and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from siltstone.errors import OutcomeUnknownError, ProtocolError, SiltstoneError, WorkerError
from siltstone_workers.answers import Answer, Answers
from siltstone_workers.errors import error_from_wire
from siltstone_workers.events import Events
from siltstone_workers.pipes import make_pipes
from siltstone_workers.receiver import Receiver
from siltstone_workers.requests import Requests
from siltstone_workers.sender import Sender, outgoing
from siltstone_workers.starting import describe_exit, identify
from siltstone_workers.starting import start_worker as _start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from siltstone_workers.kinds import Kind
    from siltstone_workers.ledger import Ledger
    from siltstone_workers.pipes import Message

#: why a process ended, as long as nothing better is known
_ENDED: Final = "it ended"


class WorkerProcess:
    """A running worker.

    Any thread may ask, and waits for its answer; one, the keeper's, listens to everything else. Once the process
    has ended, every request ends as "outcome unknown".

    :param number: which worker
    :param deadline: how long an answer may take [seconds]
    :param inherited: descriptors that it gets
    :param ledgers: of its shards, by their numbers
    :param path: where it finds its modules; None: where this process does now
    """

    def __init__(
        self,
        number: int,
        deadline: float,
        inherited: Sequence[int],
        ledgers: dict[int, Ledger],
        path: Sequence[str] | None = None,
    ) -> None:
        self.number = number
        self.deadline = deadline
        self.ledgers = ledgers
        #: how much of what was sent a flush has covered
        self.flushed = 0
        #: how many appends that nobody waited for have failed there, as far as that is counted among the losses
        self.failures = 0
        #: whether what it lost has been counted
        self.is_mourned = False
        #: whether anything was answered well since it serves
        self.has_proved_itself = False
        self._is_killed = False
        self._kill_lock = threading.Lock()
        requests, replies, events, answers = make_pipes(4)
        asking, self._replies = (Sender(pipe[1], silence=deadline) for pipe in (requests, replies))
        hearing, answering = Receiver(events[0]), Receiver(answers[0])
        theirs = [requests[0], replies[0], events[1], answers[1]]
        try:
            self._process = _start(theirs, inherited, path)
            self._pidfd = identify(self._process)
        except BaseException:
            for end in (asking, self._replies, hearing, answering):
                end.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.pid: int = self._process.pid
        self._events = Events(hearing, self._pidfd)
        self._answering = answering
        self._answers = Answers(answering, self._pidfd, lambda error: self.kill(str(error)))
        #: bytes of entries that one frame takes
        self.frame_room = asking.frame_room
        #: the way of everything that it deals with in order
        self.requests = Requests(asking, self._answers, ledgers, deadline, self.kill, self.unknown)
        # Compiled, and called without anything of Python before it: no interrupt keeps news from being heard.
        self._answers.heard = self.requests.hear

    # ---- asking

    def result(self, answer: Answer, kind: Kind, *, patience: float | None = None) -> memoryview | None:
        """The bulk of an answer, or its error; OutcomeUnknownError, and the end of the worker, after the deadline.

        :param patience: None is enough after so many seconds without an answer
        """
        if patience is not None and not self._answers.wait(answer, min(patience, self.deadline)):
            return None
        # From when it was asked: who asks several workers waits for all of them within one deadline.
        if not self._answers.wait(answer, max(0.0, answer.asked + self.deadline - time.monotonic())):
            self.kill(f"it did not answer {kind.name} within {self.deadline:g} s")
            raise self.unknown()
        if answer.error is not None:
            raise answer.error
        if answer.refusal is not None:
            raise self._refusal(answer.refusal)
        self.has_proved_itself = True
        return answer.bulk

    def _refusal(self, wire: object) -> SiltstoneError:
        try:
            return error_from_wire(wire)
        except ProtocolError as error:
            self.kill(str(error))
            return self.unknown()

    def tell(self, *fields: Any, bulk: Buffer | None = None, waited_for: bool = False) -> None:
        """Send what has no answer, which a thread of the worker waits for or not; nothing where the worker is gone."""
        with suppress(WorkerError):
            self.requests.send(
                [outgoing(fields, bulk)], self._replies if waited_for else self.requests.sender
            )

    # ---- listening

    def listen(self, timeout: float | None) -> Message | None:
        """The next message that is no answer; see :class:`siltstone_workers.events.Events`."""
        return self._events.listen(timeout)

    def listen_for(self, answer: Answer, timeout: float) -> Message | None:
        """The next message while the worker opens its shards and nobody else waits; None to look again.

        WorkerError after `timeout` seconds of silence; ChannelClosedError, ProtocolError as in :meth:`listen`.
        """
        message, is_ready = self._events.listen_beside(self._answering.reading, timeout)
        if not is_ready:
            raise WorkerError(
                f"worker {self.number} said nothing within {timeout:g} s while it opened its shards",
                worker=self.number,
                cause="silence",
            )
        if message is None:
            self._answers.wait(answer, 0)
        return message

    # ---- ending

    def unknown(self) -> OutcomeUnknownError:
        """The error of a request that this process will not answer."""
        cause = self.cause or "it is gone"
        return OutcomeUnknownError(
            f"worker {self.number} (process {self.pid}): {cause}; what was asked of it may have happened or not",
            worker=self.number,
            pid=self.pid,
            cause=cause,
        )

    def kill(self, cause: str) -> None:
        """End the process at once, for this reason unless there was another before; the keeper notices."""
        # First: whatever interrupts this, who asks next finds that it is to end, and comes here again.
        self.requests.end(cause)
        with self._kill_lock:
            # Once it has been killed, what identified it may be another's.
            if not self._is_killed:
                with suppress(OSError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self._is_killed = True

    def end(self, cause: str | None, patience: float) -> bool:
        """Make sure that the process is gone, let everybody who waits know, give up its pipes.

        False where the kernel does not let it go within `patience` seconds: it is stuck, and may still write.
        """
        self.kill(cause or _ENDED)
        gone = True
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            gone = False
            self.requests.cause = f"{self.cause}; it is stuck in the kernel"
        else:
            if self.cause == _ENDED:
                self.requests.cause = describe_exit(code)
        self._answers.end(self.unknown)
        for pipe in (self.requests.sender, self._replies, self._events):
            pipe.close()
        return gone

    @property
    def has_lost(self) -> bool:
        """Whether anything was put that no flush covered; final once the process has ended."""
        return self.requests.count_sent() > self.flushed

    def wait(self, patience: float) -> bool:
        """Whether the process is gone within `patience` seconds."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def release(self) -> None:
        """Give up what identified the process, once it is gone and everybody who waited has been told."""
        self._answers.settle()
        self._answering.close()
        with suppress(OSError):
            os.close(self._pidfd)

    @property
    def cause(self) -> str:
        """Why it ended, or ""."""
        return self.requests.cause or ""
