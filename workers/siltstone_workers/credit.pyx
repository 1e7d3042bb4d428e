"""How much more a worker may be sent: as much as a part of its pipe holds, until it tells what it dealt with."""

from siltstone_workers import frames

from siltstone.locks cimport Sleepers
from siltstone_workers.waiting cimport now

assert frames.credit_of(0) == HEAD_CREDIT


cdef class Credit:
    """Bytes that may still be sent. Any thread may give, one at a time takes.

    `left` is how many they are, `window` how many they are at first.
    """

    def __init__(self, Py_ssize_t window):
        self.window = self.left = window
        self.sleepers = Sleepers()

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
        cdef double end = now() + seconds
        while self.left < needed and not self.is_over:
            mine = self.sleepers.lie_down()
            try:
                if self.left < needed and not self.is_over and not self.sleepers.sleep(mine, end - now()):
                    return self.left >= needed
            finally:
                self.sleepers.get_up(mine)
        return True

    cpdef int give(self, Py_ssize_t size) except -1:
        """What took `size` bytes has been dealt with; there are never more than at first."""
        self.left = min(self.left + size, self.window)
        return self.sleepers.wake()

    def end(self):
        """It is over: nothing more can be taken."""
        self.is_over = True
        self.sleepers.wake()
