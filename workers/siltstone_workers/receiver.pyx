"""The reading end of a pipe: whole messages come out, in order."""

import os
from contextlib import suppress

from siltstone.errors import ProtocolError
from siltstone_workers.frames import PREFIX_SIZE as _PREFIX_SIZE
from siltstone_workers.frames import frame_length
from siltstone_workers.pipes import ChannelClosedError, Message, frame_limit, window_of

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.ref cimport Py_REFCNT
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

from siltstone_workers.decoding cimport Assembler
from siltstone_workers.waiting cimport Awake, now, wait_readable

cdef extern from "unistd.h" nogil:
    ssize_t read_system "read"(int descriptor, void *buffer, size_t size)

cdef enum:
    BUFFER_SIZE = 64 * 1024
    PREFIX = 4
    KEPT_MAX = 4                # buffers for long bodies: as many as a pipe holds

assert PREFIX == _PREFIX_SIZE


cdef class Receiver:
    """The reading end of a pipe, owned from now on and never waited for inside a read. One thread at a time may receive,
    and none while it is closed.

    `window` is what the sender has as its window.
    """

    cdef readonly int reading
    cdef readonly Py_ssize_t window
    cdef Py_ssize_t limit
    #: what was read and is not taken yet: from `start` to `fill` of the buffer
    cdef uint8_t buffer[BUFFER_SIZE]
    cdef Py_ssize_t start, fill
    #: a body that does not fit the buffer, how long it is, and how much of it is there
    cdef bytearray long_body
    cdef Py_ssize_t long_size, long_fill
    #: what long bodies lay in: memory that is taken anew costs as much as what is read to it
    cdef list kept
    #: a whole body that is being taken apart, and its size: it lies at the start of it
    cdef object body
    cdef Py_ssize_t body_size
    cdef Assembler assembler
    cdef bint is_open

    def __init__(self, int reading):
        self.reading = reading
        self.limit = frame_limit(reading)
        self.window = window_of(reading)
        os.set_blocking(reading, False)
        self.assembler = Assembler()
        self.kept = []
        self.is_open = True

    def receive(self, timeout=None, Awake awake=None):
        """The next whole message; None where none came within `timeout` seconds, some of them without sleep where
        `awake` finds that worth it.

        ChannelClosedError at the end of the pipe; ProtocolError where it ends inside a frame, or breaks a rule.
        """
        cdef double seconds = -1.0 if timeout is None else max(0.0, timeout)
        # Not asked for where it is not needed: that nothing may be waited for is the rule.
        cdef double end = now() + seconds if seconds > 0 else 0.0
        cdef uint8_t *at
        if not self.is_open:
            raise ChannelClosedError("it is closed")
        while True:
            if self.body is None:
                # Kept until it has been taken apart: a signal's handler may raise anything in between.
                self.body = self.next_body(seconds, end, awake)
            if self.body is None:
                return None
            if type(self.body) is bytes:
                at = <uint8_t *>PyBytes_AS_STRING(self.body)
            else:
                at = <uint8_t *>PyByteArray_AS_STRING(self.body)
            taken = self.assembler.take_from(self.body, at, self.body_size)
            self.body = None
            if taken is not None:
                # As Message(*taken), which is a call of Python.
                return tuple.__new__(Message, taken)
            # However fast parts come, the time is kept; those that are here stay.
            if seconds >= 0 and now() >= end:
                return None

    @property
    def has_buffered(self):
        """Whether a whole frame has been read already, or one that breaks a rule: a :meth:`receive` finds it there."""
        cdef Py_ssize_t have = self.fill - self.start
        if self.body is not None:
            return True
        return have >= PREFIX and (have >= PREFIX + self.promised() or not 0 < self.promised() <= self.limit)

    cdef Py_ssize_t promised(self) noexcept:
        """The length of the body whose prefix is in the buffer."""
        cdef uint8_t *at = &self.buffer[self.start]
        return (<Py_ssize_t>at[0] << 24) | (at[1] << 16) | (at[2] << 8) | at[3]

    cdef bytearray long_buffer(self, Py_ssize_t length):
        """A bytearray of at least so many bytes that nobody else has."""
        cdef bytearray buffer
        for buffer in self.kept:
            # The list has it, and this loop: no view of an earlier body is left.
            if Py_REFCNT(buffer) == 2:
                return buffer
        if len(self.kept) == KEPT_MAX:
            return PyByteArray_FromStringAndSize(NULL, length)
        buffer = PyByteArray_FromStringAndSize(NULL, self.limit)
        self.kept.append(buffer)
        return buffer

    cdef object next_body(self, double seconds, double end, Awake awake):
        """The next body, in bytes or a bytearray that nobody else has, its size in `body_size`; None, with nothing lost,
        where the time was too short."""
        cdef Py_ssize_t length, have
        if self.long_body is None:
            while self.fill - self.start < PREFIX:
                if not self.read_some(seconds, end, awake):
                    return None
            length = self.promised()
            if not 0 < length <= self.limit:
                frame_length(PyBytes_FromStringAndSize(<char *>&self.buffer[self.start], PREFIX), self.limit)
            while self.fill - self.start < min(PREFIX + length, <Py_ssize_t>BUFFER_SIZE):
                if not self.read_some(seconds, end, None):
                    return None
            have = self.fill - self.start - PREFIX
            if have >= length:
                body = PyBytes_FromStringAndSize(<char *>&self.buffer[self.start + PREFIX], length)
                self.start += PREFIX + length
                self.body_size = length
                return body
            # A long one: what is here is copied, the rest is read to where it stays.
            self.long_body, self.long_size, self.long_fill = self.long_buffer(length), length, have
            memcpy(PyByteArray_AS_STRING(self.long_body), &self.buffer[self.start + PREFIX], have)
            self.start = self.fill = 0
        length = self.long_size
        while self.long_fill < length:
            have = self.read_to(
                <uint8_t *>PyByteArray_AS_STRING(self.long_body) + self.long_fill,
                length - self.long_fill, seconds, end, None)
            if have < 0:
                return None
            if have == 0:
                raise ProtocolError(
                    f"the pipe ended {length - self.long_fill} bytes before the end of a frame",
                    rule="whole frames", value=length - self.long_fill)
            self.long_fill += have
        body, self.long_body = self.long_body, None
        self.body_size = length
        return body

    cdef bint read_some(self, double seconds, double end, Awake awake) except -1:
        """Read what there is into the buffer; False where nothing came in time."""
        cdef Py_ssize_t count
        if self.start:
            self.fill -= self.start
            memmove(&self.buffer[0], &self.buffer[self.start], self.fill)
            self.start = 0
        count = self.read_to(&self.buffer[self.fill], BUFFER_SIZE - self.fill, seconds, end, awake)
        if count == 0:
            if self.fill:
                raise ProtocolError(
                    f"the pipe ended {self.fill} bytes into a frame", rule="whole frames", value=self.fill)
            raise ChannelClosedError("the other end is gone")
        if count < 0:
            return False
        self.fill += count
        return True

    cdef Py_ssize_t read_to(
        self, uint8_t *at, Py_ssize_t size, double seconds, double end, Awake awake
    ) except -2:
        """Bytes that were read, at most `size`; 0 at the end of the pipe, -1 where nothing came in time."""
        cdef Py_ssize_t count
        cdef int descriptor = self.reading
        cdef double left
        while True:
            with nogil:
                count = read_system(descriptor, at, size)
            if count >= 0:
                return count
            if errno == EINTR:
                PyErr_CheckSignals()
                continue
            if errno != EAGAIN:
                PyErr_SetFromErrno(OSError)
            if seconds == 0:
                return -1
            left = seconds if seconds < 0 else max(0.0, end - now())
            if not (wait_readable(descriptor, -1, left, 0.0) if awake is None else awake.wait(descriptor, -1, left)):
                return -1

    def close(self):
        """Close the pipe; closing twice is allowed."""
        if self.is_open:
            self.is_open = False
            with suppress(OSError):
                os.close(self.reading)
