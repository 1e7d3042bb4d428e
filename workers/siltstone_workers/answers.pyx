"""Who waits for which answer of a worker. Those who wait read the pipe of answers themselves, one at a time.

A thread that reads for all of them would cost every answer two more switches of threads.
"""

import threading
import time

from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError

from siltstone_workers.checks cimport expect_items
from siltstone_workers.waiting cimport Awake, now

cdef int REPLY = Kind.REPLY
cdef tuple REPLY_ITEMS = (int, (list, None), int, list)


cdef class Answer:
    """What one request is answered with: an error or the bulk, once it has arrived; `asked` is when [seconds]."""

    def __init__(self, request):
        self.request = request
        self.asked = now()


cdef class Answers:
    """The answers of one worker process.

    :param receiver: of the pipe that carries them
    :param pidfd: readable once the process is gone, whoever else may have its end of the pipe
    :param heard: gets what the worker says of its progress with each answer, which may break a rule
    :param broken: called with what broke a rule; the process is to be ended
    """

    def __init__(self, receiver, int pidfd, heard, broken):
        self.receiver = receiver
        self.heard = heard
        self.broken = broken
        self.expected = {}
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
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
        cdef double deadline = now() + seconds, left
        cdef bint in_time
        while True:
            with self.lock:
                while not answer.has_arrived and (self.someone_reads or self.is_over):
                    left = deadline - now()
                    if left <= 0 or not self.sleep(left):
                        return answer.has_arrived
                if answer.has_arrived:
                    return True
                self.someone_reads = True
            try:
                in_time = self.read_until(answer, deadline)
            finally:
                # Without the lock: an interrupt while it is waited for would leave it so for ever.
                self.someone_reads = False
                self.wake()
            if answer.has_arrived or not in_time:
                return answer.has_arrived

    cdef bint sleep(self, seconds) except -1:
        """Wait, with the lock, until something has changed; False where nothing did in time."""
        self.waiting += 1
        try:
            return self.condition.wait(seconds)
        finally:
            self.waiting -= 1

    cdef int wake(self) except -1:
        """Something has changed: wake whoever waits. Most of the time nobody does."""
        if self.waiting:
            with self.lock:
                self.condition.notify_all()
        return 0

    def end(self, error):
        """The process is gone: everybody who waits, or will, gets an error of his own."""
        cdef Answer answer
        with self.lock:
            self.is_over = True
            self.error = error
            for answer in self.expected.values():
                answer.error, answer.has_arrived = error(), True
            self.expected.clear()
        self.wake()

    def settle(self):
        """Return once nobody reads the pipe any more, after :meth:`end`."""
        with self.lock:
            while self.someone_reads:
                self.sleep(None)

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
        request, error, number, shards = expect_items(fields, REPLY_ITEMS)
        found = None if error is None else error_from_wire(error)
        try:
            # First: who has an answer finds told what was dealt with before it.
            self.heard(number, shards)
        except ProtocolError:
            raise
        except BaseException:
            # An interrupt of who reads is nothing to who asked.
            self.arrive(request, found, bulk)
            raise
        self.arrive(request, found, bulk)
        return 0

    cdef int arrive(self, request, error, bulk) except -1:
        cdef Answer answer = self.expected.pop(request, None)
        if answer is None:
            raise ProtocolError(f"an answer to {request}, which nobody asked", rule="answers", value=request)
        # Last: who looks at it meanwhile, without the lock, finds all of it.
        answer.error, answer.bulk = error, bulk
        answer.has_arrived = True
        self.wake()
        return 0
