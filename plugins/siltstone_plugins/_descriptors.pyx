"""Descriptors that stay open while any thread is inside the kernel with them.

Compiled: every transfer passes here, and an interrupt between two steps would leave a use that never ends, or a
descriptor, and with it the lock on a volume, that nobody closes.
"""

import fcntl
import os

from siltstone.errors import ClosedError


cdef class Descriptors:
    """The open descriptors of one backend, as a context manager around each use.

    Closing while a transfer runs would let the kernel give its number to another file, and the transfer
    would go there. So the last user closes.

    :param url: names the backend in errors
    :param descriptors: owned from now on

    With `keep_lock` other processes have the locked descriptor too: closing leaves the lock to them.
    """

    # The interpreter lock is never given up between two steps that belong together: no other lock is needed.
    cdef object url
    cdef list open
    cdef Py_ssize_t users
    cdef bint closed
    cdef int process
    cdef public bint keep_lock

    def __init__(self, url, *descriptors):
        self.url = url
        self.open = list(descriptors)
        self.process = os.getpid()

    def __enter__(self):
        if self.closed:
            raise ClosedError(f"{self.url} is closed", what=self.url)
        self.users += 1

    def __exit__(self, kind, error, trace):
        self.users -= 1
        self.release()

    def add(self, int descriptor):
        """Own one more descriptor; called from inside a use."""
        self.open.append(descriptor)

    def close(self):
        """Let no new use begin; close now, or when the last use ends."""
        self.closed = True
        self.release()

    cdef int release(self) except -1:
        if self.closed and not self.users and self.open is not None:
            while self.open:
                # An error here has nothing to report: what mattered was flushed, and the number is free.
                self.let_go(self.open.pop())
        return 0

    cdef int let_go(self, int descriptor) except -1:
        # A child that was forked from here shares the lock, and may live on: the owner gives it up for both.
        if os.getpid() == self.process and not self.keep_lock:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except OSError:
                pass
        try:
            os.close(descriptor)
        except OSError:
            pass
        return 0

    def __del__(self):
        self.closed = True
        self.release()
