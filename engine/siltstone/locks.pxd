cdef class Attempt:
    cdef object lock
    cdef bint held


cdef class Sleepers:
    cdef object asleep

    cdef object lie_down(self)
    cdef bint sleep(self, object mine, double seconds) except -1
    cdef int get_up(self, object mine) except -1
    cdef int wake(self) except -1
