"""Locks that are taken only where they are free, threads that sleep, and calls that run to their end, whatever interrupts
what is done with them."""

import threading
from collections import deque


cdef class Attempt:
    """Takes a lock for the block of a `with` statement, if nobody has it; the block is told whether it did.

    ``lock.acquire(False)`` in front of a `try` leaves the lock held for ever where an interrupt comes between the two.
    Here nothing of Python runs in between.
    """

    def __init__(self, lock not None):
        self.lock = lock

    def __enter__(self):
        self.held = self.lock.acquire(False)
        return self.held

    def __exit__(self, kind, error, trace):
        if self.held:
            self.held = False
            self.lock.release()


cdef class Sleepers:
    """Threads that sleep until something has changed, which they then look at; in compiled code alone.

    A condition of the standard library gives up its lock and takes it again in Python: an interrupt between the two
    becomes an error of its own. Here is no lock: who is to sleep lies down, looks once more, and sleeps; who changes
    something wakes all who lie there::

        mine = sleepers.lie_down()
        try:
            if not self.has_changed:
                sleepers.sleep(mine, seconds)
        finally:
            sleepers.get_up(mine)
    """

    def __init__(self):
        self.asleep = deque()

    cdef object lie_down(self):
        """From here on a :meth:`wake` ends the :meth:`sleep` of this thread, also one that it has not begun."""
        mine = threading.Lock()
        mine.acquire()
        self.asleep.append(mine)
        return mine

    cdef bint sleep(self, object mine, double seconds) except -1:
        """Whether it was woken within `seconds`."""
        return mine.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))

    cdef int get_up(self, object mine) except -1:
        """It sleeps no longer."""
        try:
            self.asleep.remove(mine)
        except ValueError:
            pass  # it was woken
        return 0

    cdef int wake(self) except -1:
        """Let all who lie there look again."""
        while self.asleep:
            try:
                mine = self.asleep.popleft()
            except IndexError:
                break
            mine.release()
        return 0


cdef class Uninterrupted:
    """A call on its way to a thread of its own: whoever takes it first makes it, or nobody does."""

    cdef object call, result, error, ended
    cdef bint taken

    def __init__(self, call):
        self.call = call
        self.ended = threading.Lock()
        self.ended.acquire()

    cdef bint take(self) noexcept:
        cdef bint first = not self.taken
        self.taken = True
        return first

    def run(self):
        if not self.take():
            return
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.release()


def uninterrupted(call not None):
    """Return what `call` returns, or raise what it raises, once it has come to its end, whatever interrupts this thread.

    Signals are handled by the main thread: there it runs on a thread of its own, and an interrupt is raised when it is
    over, unless it had not begun. Where the system allows no more threads it runs here, and can be cut off.
    """
    cdef Uninterrupted inside
    interrupt = None
    if threading.current_thread() is not threading.main_thread():
        return call()
    inside = Uninterrupted(call)
    try:
        threading.Thread(target=inside.run, name="siltstone-uninterrupted", daemon=True).start()
    except RuntimeError:
        if inside.take():
            return call()
    except BaseException as error:
        if inside.take():
            raise
        interrupt = error
    while True:
        try:
            inside.ended.acquire()
            break
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt from inside.error
    if inside.error is not None:
        error, inside.error = inside.error, None
        raise error
    return inside.result
