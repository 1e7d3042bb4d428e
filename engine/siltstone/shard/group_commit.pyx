"""Group commit: many threads that ask for a flush, one flush of the medium for all of them.

Compiled: every commit goes through here. And no interrupt comes in between two of its steps, but where it waits.
"""

import threading
from collections import deque

from siltstone.errors import SiltstoneError

#: after which a thread looks for itself whether it is still waited for: an interrupt may have kept others from
#: telling it [s]
LOOK_SECONDS = 1.0


cdef class Sleeper:
    """A thread that sleeps until a flush has ended, or until it is its turn to run one."""

    cdef object lock
    #: what the flush that was for it raised
    cdef object error

    def __init__(self):
        self.lock = threading.Lock()
        self.lock.acquire()


cdef class GroupCommit:
    """Serves all threads that ask while one flush is under way by the next one.

    One of them runs that; the others sleep, each on a lock of its own, until it has ended. On one lock for all they
    would pass one by one, each after a switch of threads, and flush again what those in front have put meanwhile.

    :param flush: the blocking call. A SiltstoneError that it raises is raised in all whom it was for
    :param look_seconds: after which a thread looks for itself whether it is still waited for: an interrupt may have
        kept others from telling it

    `asleep` are those who sleep, `ended` is the number of the last flush that ended well.
    """

    cdef public object flush, asleep
    cdef readonly object leading
    #: numbers of the last flush that began, and of the last that ended well; changed by who leads
    cdef unsigned long long begun
    cdef readonly unsigned long long ended
    cdef double look_seconds

    def __init__(self, flush, double look_seconds=LOOK_SECONDS):
        self.flush = flush
        self.look_seconds = look_seconds
        self.leading = threading.Lock()
        self.asleep = deque()

    def ask(self):
        """Return when a flush that began after this call has ended well, run by this thread or another."""
        cdef unsigned long long begun = self.begun, number
        cdef Sleeper each
        cdef list served = []
        try:
            while self.leading.locked():
                error = self.sleep()
                if error is not None:
                    raise error
                if self.ended > begun:
                    return
            with self.leading:
                # Others may have led while this thread woke up.
                if self.ended > begun:
                    return
                self.begun += 1
                number = self.begun
                if self.asleep:
                    self.take_along(served)
                try:
                    self.flush()
                except SiltstoneError as error:
                    # Also told to the others: whoever asked again would stand behind those who ask all the time.
                    for each in served:
                        each.error = error.to_keep()
                    raise
                self.ended = number
        finally:
            # Whoever leads next first: its flush and what those who were served do next run side by side.
            if self.asleep:
                self.wake_next()
            for each in served:
                each.lock.release()

    cdef int take_along(self, list served) except -1:
        """All who sleep by now; another thread may be waking one of them."""
        try:
            for _ in range(len(self.asleep)):
                served.append(self.asleep.popleft())
        except IndexError:
            pass
        return 0

    cdef object sleep(self):
        """Sleep until somebody wakes this thread, which then looks what it has to do; the error that is its answer."""
        cdef Sleeper mine = Sleeper()
        cdef bint woken = False
        try:
            self.asleep.append(mine)
            # Whoever leads has either not looked yet who sleeps, or is gone.
            if self.leading.locked():
                woken = mine.lock.acquire(timeout=self.look_seconds)
        finally:
            if not woken:
                # Unless it was just chosen to lead, which it then does, or passes on.
                try:
                    self.asleep.remove(mine)
                except ValueError:
                    pass
        return mine.error

    cdef int wake_next(self) except -1:
        """Wake the one that sleeps longest, so that it leads, unless somebody does already, who will do this then."""
        cdef Sleeper chosen
        if not self.leading.locked():
            try:
                chosen = self.asleep.popleft()
            except IndexError:
                return 0
            chosen.lock.release()
        return 0
