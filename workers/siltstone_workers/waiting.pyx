"""Waits until a descriptor can be read: for a moment without sleep, then asleep.

A processor that has gone idle takes as long to wake as a small flush of the medium takes. So who expects an answer
at once looks for it for a while before it sleeps, without the interpreter lock, and gives way to whoever can run.
"""

from cpython.exc cimport PyErr_CheckSignals

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
    return (1 if descriptors[0].revents else 0) | (2 if descriptors[1].revents else 0)
