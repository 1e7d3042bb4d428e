"""Who waits for which answer of a worker. Those who wait read the pipe of answers themselves, one at a time.

A thread that reads for all of them would cost every answer two more switches of threads.
"""

import threading

from siltstone_workers.errors import ProtocolError
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError

from siltstone.locks cimport Sleepers
from siltstone_workers.checks cimport expect_items
from siltstone_workers.waiting cimport Awake, now

#: after which who waits for the reader to go looks for himself [s]
cdef double LOOK_SECONDS = 1.0
cdef int REPLY = Kind.REPLY
cdef tuple REPLY_ITEMS = (int, (list, None), int, list)


cdef class Answer:
    """What one request is answered with, once it has arrived; `asked` is when [seconds].

    That is `error`, where the process is gone, or `refusal`, an error as the worker sent it, or else the `bulk`.
    """

    def __init__(self, request):
        self.request = request
        self.asked = now()


cdef class Answers:
    """The answers of one worker process.

    :param receiver: of the pipe that carries them
    :param pidfd: readable once the process is gone, whoever else may have its end of the pipe
    :param broken: called with what broke a rule; the process is to be ended

    `heard` is to be set: it gets what the worker says of its progress with each answer, which may break a rule. It is
    compiled: an interrupt in it would take the answer from who asked.
    """

    def __init__(self, receiver, int pidfd, broken):
        self.receiver = receiver
        self.broken = broken
        self.expected = {}
        self.lock = threading.RLock()
        self.sleepers = Sleepers()
        self.pidfd = pidfd
        self.awake = Awake()

    cpdef Answer expect(self):
        """An answer that somebody will wait for; its `request` goes with the question."""
        cdef Answer answer
        with self.lock:
            if self.error is not None:
                raise self.error()
            self.last += 1
            answer = Answer(self.last)
            self.expected[answer.request] = answer
        return answer

    cpdef bint wait(self, Answer answer, double seconds) except -1:
        """Whether the answer is here within `seconds`."""
        cdef double deadline = now() + seconds
        cdef bint in_time
        while not answer.has_arrived:
            if self.someone_reads or self.is_over:
                mine = self.sleepers.lie_down()
                try:
                    if (not answer.has_arrived and (self.someone_reads or self.is_over)
                            and not self.sleepers.sleep(mine, deadline - now())):
                        return answer.has_arrived
                finally:
                    self.sleepers.get_up(mine)
                continue
            # Nobody else comes between this and what was just looked at.
            self.someone_reads = True
            try:
                in_time = self.read_until(answer, deadline)
            finally:
                self.someone_reads = False
                self.sleepers.wake()
            if not in_time:
                return answer.has_arrived
        return True

    def end(self, error):
        """The process is gone: everybody who waits, or will, gets an error of his own."""
        cdef Answer answer
        with self.lock:
            self.is_over = True
            self.error = error
            # One by one: whoever reads takes from them at the same time.
            while self.expected:
                try:
                    _request, answer = self.expected.popitem()
                except KeyError:
                    break
                answer.error = error()
                answer.has_arrived = True
        self.sleepers.wake()

    def settle(self):
        """Return once nobody reads the pipe any more, after :meth:`end`."""
        while self.someone_reads:
            mine = self.sleepers.lie_down()
            try:
                if self.someone_reads:
                    self.sleepers.sleep(mine, LOOK_SECONDS)
            finally:
                self.sleepers.get_up(mine)

    # ---- reading

    cdef bint read_until(self, Answer answer, double deadline) except -1:
        """Read for everybody until one's own answer is here; False after the deadline, True also at the pipe's end."""
        cdef int ready
        while not answer.has_arrived and not self.is_over:
            if not self.receiver.has_buffered:
                ready = self.awake.wait(self.receiver.reading, self.pidfd, max(0.0, deadline - now()))
                if not ready:
                    return False
                if not ready & 1:
                    self.is_over = True
                    break
            try:
                # What is here and no more: the process may stop, or end, in the middle of a frame.
                message = self.receiver.receive(0.0)
                if message is not None:
                    self.take(message)
            except (ChannelClosedError, OSError):
                self.is_over = True
            except ProtocolError as error:
                self.is_over = True
                self.broken(error)
        return True

    cdef int take(self, message) except -1:
        cdef list fields
        cdef Answer answer
        fields, bulk = message
        if fields[0] != REPLY:
            raise ProtocolError(
                f"a message of kind {fields[0]} among the answers", rule="kind", value=fields[0]
            )
        # All of it compiled: an interrupt of who reads takes nothing from who asked, and no news.
        request, refusal, number, shards = expect_items(fields, REPLY_ITEMS)
        # First: who has an answer finds told what was dealt with before it.
        self.heard(number, shards)
        answer = self.expected.pop(request, None)
        if answer is None:
            raise ProtocolError(f"an answer to {request}, which nobody asked", rule="answers", value=request)
        # Last: who looks at it meanwhile finds all of it.
        answer.refusal, answer.bulk = refusal, bulk
        answer.has_arrived = True
        return self.sleepers.wake()
