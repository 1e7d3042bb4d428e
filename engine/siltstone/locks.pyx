"""Locks that are taken only where they are free, and given up whatever interrupts what is done with them."""


cdef class Attempt:
    """Takes a lock for the block of a `with` statement, if nobody has it; the block is told whether it did.

    ``lock.acquire(False)`` in front of a `try` leaves the lock held for ever where an interrupt comes between the two.
    Here nothing of Python runs in between.
    """

    cdef object lock
    cdef bint held

    def __init__(self, lock not None):
        self.lock = lock

    def __enter__(self):
        self.held = self.lock.acquire(False)
        return self.held

    def __exit__(self, kind, error, trace):
        if self.held:
            self.held = False
            self.lock.release()
