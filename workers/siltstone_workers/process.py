"""One worker process as the core sees it: how it is started, asked, listened to and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from siltstone.errors import ClosedError, OutcomeUnknownError, WorkerError
from siltstone.locks import Attempt
from siltstone_workers.answers import Answer, Answers
from siltstone_workers.checks import rows
from siltstone_workers.credit import Credit
from siltstone_workers.errors import ProtocolError
from siltstone_workers.events import Events
from siltstone_workers.frames import credit_of
from siltstone_workers.gathering import Batch, messages_of
from siltstone_workers.kinds import Kind
from siltstone_workers.outbox import Outbox
from siltstone_workers.pipes import ChannelClosedError, SilentError, make_pipes
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender, outgoing
from siltstone_workers.starting import describe_exit, identify
from siltstone_workers.starting import start_worker as _start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone_workers.ledger import Ledger
    from siltstone_workers.pipes import Message
    from siltstone_workers.sender import Outgoing

#: why a process ended, as long as nothing better is known
_ENDED: Final = "it ended"
#: as a plain number: to look a member of Kind up costs more than to send it
_APPEND: Final = int(Kind.APPEND)
#: batches up to this size wait for others, until there are so many bytes of them
_SMALL_BYTES: Final = 4096
_OUTBOX_BYTES: Final = 32 * 1024


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
        ledgers: Mapping[int, Ledger],
        path: Sequence[str] | None = None,
    ) -> None:
        self.number = number
        self.deadline = deadline
        self.ledgers = ledgers
        self._outbox = Outbox()
        self._is_ending = False
        self._unheard = False  # records were sent, and nothing was heard of the worker since
        #: held while something is made visible and sent: both in one order
        self.order = threading.Lock()
        #: appends and deletes so far, counted before anything can be seen of them so that no interrupt keeps one from
        #: the next flush, and how many of them a flush has covered
        self.sent = self.flushed = 0
        #: whether what it lost has been counted
        self.is_mourned = False
        #: whether anything was answered well since it serves
        self.has_proved_itself = False
        self._cause: str | None = None
        self._is_killed = False
        self._kill_lock = threading.Lock()
        requests, replies, events, answers = make_pipes(4)
        self._requests, self._replies = (Sender(pipe[1], silence=deadline) for pipe in (requests, replies))
        hearing, answering = Receiver(events[0]), Receiver(answers[0])
        theirs = [requests[0], replies[0], events[1], answers[1]]
        try:
            self._process = _start(theirs, inherited, path)
            self._pidfd = identify(self._process)
        except BaseException:
            for end in (self._requests, self._replies, hearing, answering):
                end.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.credit = Credit(self._requests.window)
        #: bytes of entries that one frame takes
        self.frame_room = self._requests.frame_room
        self.pid: int = self._process.pid
        self._events = Events(hearing, self._pidfd)
        self._answering = answering
        self._answers = Answers(answering, self._pidfd, self.hear, lambda error: self.kill(str(error)))

    # ---- asking

    def ask(self, kind: Kind, *items: Any, bulk: Buffer | None = None) -> Answer:
        """Send a request, behind everything that was put before; its answer is for :meth:`result`."""
        with self.order:
            self._check_open()
            answer = self._answers.expect()
            self._post(outgoing([kind, answer.request, *items], bulk))
            self._is_ending = kind == Kind.END
        return answer

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
        self.has_proved_itself = True
        return answer.bulk

    def append(self, batches: Sequence[Batch]) -> list[Answer | None]:
        """Put batches of different shards; for each None where it surely fits and nobody needs to wait, or its answer.

        A small one waits here for others while the worker has not told that it dealt with the one before, until
        somebody asks for something or there is enough for a message that is worth it; readers find it all the same.
        """
        with self.order:
            self._check_open()
            sure = [ledger.surely_fits(len(stream), records) for ledger, stream, records in batches]
            answers = self._append(batches, sure)
        return answers  # noqa: RET504 - behind a call in a `return` inside the block nothing gives the lock up

    def append_one(self, batch: Batch) -> Answer | None:
        """As :meth:`append` for one batch."""
        return self.append([batch])[0]

    def try_append(self, batch: Batch) -> bool:
        """Put a small batch, if that surely fits and neither the worker nor another thread is waited for."""
        ledger, stream, records = batch
        size = len(stream)
        if size > _SMALL_BYTES:
            return False
        with Attempt(self.order) as is_free:
            if not is_free:
                return False
            self._check_open()
            has_credit = self.credit.left >= self._outbox.credit + credit_of(size)
            # Looked at once: what another thread hears meanwhile must not make it one that is waited for.
            fits = has_credit and ledger.surely_fits(size, records)
            if fits:
                self._append_small(ledger, stream, records, size)
            return fits

    def _append(self, batches: Sequence[Batch], sure: Sequence[bool]) -> list[Answer | None]:
        """Put batches, of which some surely fit. An error leaves those counted, and found, that wait to be sent."""
        answers = [None if fits else self._answers.expect() for fits in sure]
        sent: list[tuple[int, Batch, Answer | None]] = []
        self.sent += len(batches)
        try:
            for batch, answer in zip(batches, answers, strict=True):
                ledger, stream, records = batch
                if answer is None and self._unheard and len(stream) <= _SMALL_BYTES:
                    self._keep(ledger, stream, records)
                else:
                    sequence = ledger.next_sequence()
                    sent.append((sequence, batch, answer))
                    ledger.send(sequence, stream, records, visible=answer is None)
            if sent or self._outbox.bytes >= _OUTBOX_BYTES:
                messages, credit = messages_of(sent)
                self._post(*messages, credit=credit)
        except BaseException:
            for sequence, batch, _answer in sent:
                batch.ledger.cancel(sequence)
            raise
        return answers

    def _append_small(self, ledger: Ledger, stream: NDArray[np.uint8], records: int, size: int) -> None:
        """As :meth:`_append` for one small batch that surely fits."""
        self.sent += 1
        if self._unheard:
            self._keep(ledger, stream, records)
            if self._outbox.bytes >= _OUTBOX_BYTES:
                self._post()
            return
        sequence = ledger.next_sequence()
        try:
            ledger.send(sequence, stream, records, visible=True)
            part = (ledger.shard, sequence, records, size)
            self._post(([_APPEND, 0, [part]], [stream.data]), credit=credit_of(size))
        except BaseException:
            ledger.cancel(sequence)
            raise

    def _keep(self, ledger: Ledger, stream: NDArray[np.uint8], records: int) -> None:
        """Let a small batch wait in the outbox, from where it will be sent whatever becomes of others."""
        sequence = ledger.next_sequence()
        try:
            ledger.send(sequence, stream, records, visible=True)
            self._outbox.add(ledger.shard, sequence, stream, records)
        except BaseException:
            ledger.cancel(sequence)
            raise

    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> Answer:
        """Send keys to be deleted, behind everything that was put before."""
        _count, size = keys.shape
        with self.order:
            self._check_open()
            answer = self._answers.expect()
            rows = keys.reshape(-1).data
            self.sent += 1
            self._post(
                ([Kind.DELETE, answer.request, shard, kind, size], [rows]), credit=credit_of(len(rows))
            )
        return answer

    def tell(self, *fields: Any, bulk: Buffer | None = None, waited_for: bool = False) -> None:
        """Send what has no answer, which a thread of the worker waits for or not; nothing where the worker is gone."""
        with suppress(WorkerError):
            self._send([outgoing(fields, bulk)], self._replies if waited_for else self._requests)

    def _check_open(self) -> None:
        """ClosedError once the worker was told to end its shards: nothing may come behind that.

        OutcomeUnknownError once it was killed or has ended: a batch that waits here for others would never be sent.
        """
        if self._is_ending:
            raise ClosedError("the store is closed", what="store")
        if self._cause is not None:
            self.kill(self._cause)  # an interrupt may have kept the signal from it
            raise self.unknown()

    def _post(self, *last: Outgoing, credit: int = 0) -> None:
        """Send what waits in the outbox and these messages, which take `credit`, once the worker has room for them.

        An error, or an interrupt, leaves in the outbox what was not sent of it.
        """
        empty = Outbox()
        waiting, of_waiting = self._outbox.messages(), self._outbox.credit
        credit += of_waiting
        sent = self._requests.sent
        self.credit.taken = 0
        try:
            if credit:
                if not self.credit.take(credit, self.deadline, lambda: self._cause is not None):
                    self.kill(f"it dealt with nothing within {self.deadline:g} s")
                    raise self.unknown()
                self._unheard = True
            self._send([*waiting, *last], self._requests)
        finally:
            # Before anything is called: what is in the pipe must not be sent again.
            sent = self._requests.sent - sent
            if sent and waiting:
                self._outbox = empty
            if sent < len(waiting) + len(last):
                self.credit.give(self.credit.taken - (of_waiting if sent and waiting else 0))

    def _send(self, messages: Sequence[Outgoing], pipe: Sender) -> None:
        """Send messages in one go; a worker that cannot be sent to any more is ended."""
        try:
            pipe.send_all(messages)
        except SilentError as error:
            self.kill(f"it took nothing from its pipe: {error}")
            raise self.unknown() from error
        except (ChannelClosedError, OSError) as error:
            # Also where an interrupt tore a message: nothing can be sent to this process any more.
            self.kill("its pipe is closed, or a message to it was not sent whole")
            raise self.unknown() from error

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

    def hear(self, number: int, shards: object) -> None:
        """Take over what the worker says of its progress, the last two items of a message; ProtocolError where that is
        malformed, or a shard is not its own."""
        for shard, sequence, room, records in rows("progress", shards, 4):
            ledger = self.ledgers.get(shard)
            if ledger is None:
                raise ProtocolError(f"shard {shard} is another worker's", rule="own shards", value=shard)
            ledger.progress(number, sequence, room, records)
        self._unheard = False

    # ---- ending

    def unknown(self) -> OutcomeUnknownError:
        """The error of a request that this process will not answer."""
        cause = self._cause or "it is gone"
        return OutcomeUnknownError(
            f"worker {self.number} (process {self.pid}): {cause}; what was asked of it may have happened or not",
            worker=self.number,
            pid=self.pid,
            cause=cause,
        )

    def kill(self, cause: str) -> None:
        """End the process at once, for this reason unless there was another before; the keeper notices."""
        self._cause = self._cause or cause
        with self._kill_lock:
            # Once it has been killed, what identified it may be another's.
            if not self._is_killed:
                with suppress(OSError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                self._is_killed = True
        self.credit.wake()

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
            self._cause = f"{self._cause}; it is stuck in the kernel"
        else:
            if self._cause == _ENDED:
                self._cause = describe_exit(code)
        self._answers.end(self.unknown)
        for pipe in (self._requests, self._replies, self._events):
            pipe.close()
        return gone

    @property
    def has_lost(self) -> bool:
        """Whether anything was put that no flush covered; final once the process has ended."""
        # An append under way is counted before this returns, and each later one is refused.
        with self.order:
            return self.sent > self.flushed

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
        return self._cause or ""
