"""Waits until a descriptor can be read: for a moment without sleep, then asleep.

A processor that has gone idle takes as long to wake as a small flush of the medium takes: some 40 microseconds, which a
commit would pay twice. So who expects an answer at once looks for it for a while before it sleeps, without the
interpreter lock, and gives way to whoever can run. That takes processor time from others: only what comes soon is
looked for.
"""

import os

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll_system "poll"(pollfd *descriptors, unsigned long count, int milliseconds)
    short POLLIN

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int CLOCK_MONOTONIC

cdef enum:
    LONGEST_SECONDS = 1000

#: a wait that takes longer than this is slept through: waking up costs little beside it [seconds]
AWAKE_MAX = 0.001

#: the part that the last wait has in what is expected of the next
cdef double WEIGHT = 0.125


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cpdef int wait_readable(int first, int second, double seconds, double awake) except -1:
    """Which of two descriptors can be read, or has come to its end: bit 0 and bit 1; 0 where neither did in time.

    :param second: -1 where there is only one
    :param seconds: how long to wait; less than 0: for ever
    :param awake: for how much of that without sleep [seconds]
    """
    cdef pollfd descriptors[2]
    cdef int count = 2 if second >= 0 else 1, ready, left
    cdef double begin = now(), passed = 0.0
    descriptors[0].fd, descriptors[0].events = first, POLLIN
    descriptors[1].fd, descriptors[1].events = second, POLLIN
    if 0 <= seconds < awake:
        awake = seconds
    with nogil:
        while True:
            descriptors[0].revents = descriptors[1].revents = 0
            ready = poll_system(descriptors, count, 0)
            if ready:
                break
            passed = now() - begin
            if passed >= awake:
                break
            sched_yield()
    while ready <= 0:
        # Also of a signal that came while it did not sleep.
        PyErr_CheckSignals()
        passed = now() - begin
        left = -1
        if seconds >= 0:
            if passed >= seconds:
                return 0
            # Rounded up: it does not wake just before the time is over, to look again and again.
            left = <int>(min(seconds - passed, LONGEST_SECONDS) * 1000) + 1
        descriptors[0].revents = descriptors[1].revents = 0
        with nogil:
            ready = poll_system(descriptors, count, left)
        if ready < 0 and errno != EINTR:
            raise OSError(errno, os.strerror(errno))
    return (1 if descriptors[0].revents else 0) | (2 if descriptors[1].revents else 0)


cdef class Awake:
    """Waits for one thing, for one thread at a time, and learns how long that takes.

    :param longest: a wait that takes longer is slept through [seconds]
    """

    def __init__(self, double longest=AWAKE_MAX):
        self.longest = longest
        self.expected = longest / 4

    @property
    def seconds(self):
        """For how long the next wait goes on without sleep."""
        return self.worth()

    cdef double worth(self) noexcept:
        # Twice as long as usual: most come within that. What usually comes late is not looked for at all.
        return min(2 * self.expected, self.longest) if self.expected < self.longest else 0.0

    cpdef void took(self, double seconds) noexcept:
        """A wait took so long."""
        # One that took for ever counts as a long one: it says nothing of those after it.
        self.expected += WEIGHT * (min(seconds, 4 * self.longest) - self.expected)

    cpdef int wait(self, int first, int second, double seconds) except -1:
        """As :func:`wait_readable`, for as long without sleep as is worth it."""
        cdef double begin
        cdef int ready
        if seconds == 0:
            # A look alone says nothing of how long they take.
            return wait_readable(first, second, 0.0, 0.0)
        begin = now()
        ready = wait_readable(first, second, seconds, self.worth())
        self.took(now() - begin)
        return ready
