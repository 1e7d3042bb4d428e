"""The writing end of a pipe: whole messages go in, of any thread.

Compiled: every message goes through here. And no interrupt comes in between what is written and what is counted; it
comes only where a lock or a full pipe is waited for, and where a message is made.
"""

import os
import select
import threading
from contextlib import suppress

from siltstone_workers.frames import DROP as _DROP
from siltstone_workers.frames import PART as _PART
from siltstone_workers.frames import packer
from siltstone_workers.pipes import ChannelClosedError, SilentError, frame_limit, window_of

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t

from siltstone_workers.encoding cimport BULK_HEAD_SIZE, MESSAGE_MAX, checked, head_of

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev_system "writev"(int descriptor, iovec *pieces, int count)

cdef enum:
    #: pieces that one system call writes
    PIECES_MAX = 512

#: a message that is not long [bytes]
SHORT_MESSAGE = 1024


def outgoing(fields, bulk):
    """A message that is to be sent, with bulk in one piece or none; it is not copied."""
    return fields, () if bulk is None else (memoryview(bulk).cast("B"),)


cdef class Sender:
    """The writing end of a pipe, owned from now on. Any thread may send.

    `window` is how many bytes of counted messages may be under way (:func:`siltstone_workers.pipes.window_of`), so that
    they never block in the pipe; `frame_room` how many bytes of bulk a frame takes beside a short message; `sent` how
    many messages are in the pipe whole.

    :param silence: how long a write may find the pipe full before the other end counts as hung [seconds]; None:
        for ever
    """

    def __init__(self, int writing, *, silence=None):
        self.writing = writing
        self.silence = silence
        self.limit = frame_limit(writing)
        self.frame_room = self.limit - SHORT_MESSAGE - BULK_HEAD_SIZE
        self.window = window_of(writing)
        os.set_blocking(writing, False)
        self.lock = threading.Lock()
        self.pack = packer()

    def send(self, fields, bulk=None):
        """Write one message, in parts where its bulk is longer than a frame.

        Returns when all of it is in the pipe. ChannelClosedError, SilentError: the other end is gone or hung, and
        nothing more can be sent.
        """
        self.send_all([outgoing(fields, bulk)])

    cpdef send_all(self, list messages):
        """Write messages one after another, in one go as far as they are short; errors as in :meth:`send`."""
        cdef list pieces = []
        cdef Py_ssize_t gathered = 0, length  # messages in the pieces, bytes of bulk
        cdef bytes body
        with self.lock:
            if self.in_parts:
                self.write([head_of(checked(self.pack([_DROP])), -1)], 0)
                self.in_parts = False
            for fields, bulk in messages:
                body = checked(self.pack(fields))
                length = -1
                if bulk:
                    length = 0
                    for piece in bulk:
                        length += len(piece)
                    if length > self.limit - len(body) - BULK_HEAD_SIZE:
                        if pieces:
                            self.write(pieces, gathered)
                        pieces, gathered = [], 0
                        rest = self.write_parts(bulk)
                        bulk, length = (rest,), len(rest)
                pieces.append(head_of(body, length))
                pieces.extend(bulk)
                gathered += 1
                if self.in_parts or len(pieces) > PIECES_MAX:
                    self.write(pieces, gathered)
                    pieces, gathered = [], 0
                    self.in_parts = False
            if pieces:
                self.write(pieces, gathered)

    cdef object write_parts(self, bulk):
        """Write all of a message's bulk that its own frame does not take; the rest."""
        view = memoryview(bulk[0] if len(bulk) == 1 else b"".join(bulk))
        cdef Py_ssize_t room = self.limit - MESSAGE_MAX - BULK_HEAD_SIZE
        self.in_parts = True
        while len(view) > room:
            self.write([head_of(checked(self.pack([_PART])), room), view[:room]], 0)
            view = view[room:]
        return view

    cpdef write(self, list pieces, Py_ssize_t messages):
        """Write pieces, with which so many messages are whole. Once one was begun and not ended nothing is written any
        more: nothing after it would be understood."""
        cdef Py_ssize_t size = 0, done
        if self.torn or self.closed:
            raise ChannelClosedError("it is closed, or an earlier message was not sent whole")
        for piece in pieces:
            size += len(piece)
        self.torn = True
        done = self.put(pieces)
        while done < size:
            self.wait_writable()
            done += self.put([memoryview(b"".join(pieces))[done:]])
        self.sent += messages
        self.torn = False

    cdef Py_ssize_t put(self, list pieces) except -1:
        """Write what the pipe takes now of some pieces; how many bytes that is."""
        cdef iovec vectors[PIECES_MAX]
        cdef Py_buffer buffers[PIECES_MAX]
        cdef int count = 0, error = 0
        cdef ssize_t written = -1
        try:
            for piece in pieces:
                if count == PIECES_MAX:
                    break
                PyObject_GetBuffer(piece, &buffers[count], PyBUF_SIMPLE)
                vectors[count].iov_base, vectors[count].iov_len = buffers[count].buf, buffers[count].len
                count += 1
            with nogil:
                written = writev_system(self.writing, vectors, count)
                error = errno
        finally:
            for at in range(count):
                PyBuffer_Release(&buffers[at])
        if written >= 0:
            return written
        if error == EAGAIN:
            return 0
        if error == EINTR:
            PyErr_CheckSignals()
            return 0
        if error == EPIPE:
            raise ChannelClosedError("the other end is gone")
        raise OSError(error, os.strerror(error))

    cpdef wait_writable(self):
        """Return once the pipe takes something; SilentError where it stays full."""
        poll = select.poll()
        poll.register(self.writing, select.POLLOUT)
        if not poll.poll(None if self.silence is None else self.silence * 1000):
            raise SilentError(f"the pipe stayed full for {self.silence} s")

    def close(self):
        """Close the pipe, once no send is under way; closing twice is allowed."""
        with self.lock:
            if not self.closed:
                self.closed = True
                with suppress(OSError):
                    os.close(self.writing)
