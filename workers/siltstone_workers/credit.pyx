"""How much more a worker may be sent: as much as a part of its pipe holds, until it tells what it dealt with."""

import threading
import time

from siltstone_workers import frames

assert frames.credit_of(0) == HEAD_CREDIT


cdef class Credit:
    """Bytes that may still be sent. Any thread may give, one at a time takes.

    `left` is how many they are, `window` how many they are at first.
    """

    def __init__(self, Py_ssize_t window):
        self.window = self.left = window
        # Taken by itself, never through the condition: that takes it in Python, where an interrupt leaves it held.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    cpdef bint take(self, Py_ssize_t size, double seconds) except -1:
        """Take `size` bytes once there are as many, or all there ever are; False, with nothing taken, where there are not
        within `seconds`, or it is over."""
        cdef Py_ssize_t needed = min(size, self.window)
        if self.left < needed and not self.wait_for(needed, seconds) or self.is_over:
            return False
        self.left -= size
        return True

    cdef bint wait_for(self, Py_ssize_t needed, double seconds) except -1:
        """Whether there are so many, or it is over, within `seconds`."""
        cdef double end = time.monotonic() + seconds
        # Before it is looked how much there is: who gives from here on takes the lock.
        self.someone_waits = True
        try:
            with self.lock:
                while self.left < needed and not self.is_over:
                    if not self.changed.wait(end - time.monotonic()) and self.left < needed:
                        return False
        finally:
            self.someone_waits = False
        return True

    cpdef int give(self, Py_ssize_t size) except -1:
        """What took `size` bytes has been dealt with."""
        # No lock: an interrupt while it is waited for would keep them from ever being given.
        self.left += size
        return self.tell()

    def end(self):
        """It is over: nothing more can be taken."""
        self.is_over = True
        self.tell()

    cdef int tell(self) except -1:
        """Let who waits look again."""
        if self.someone_waits:
            with self.lock:
                self.changed.notify_all()
        return 0
