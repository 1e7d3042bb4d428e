cdef double now() noexcept nogil

cpdef int wait_readable(int first, int second, double seconds, double awake) except -1


cdef class Awake:
    cdef double longest, expected

    cdef double worth(self) noexcept
    cpdef void took(self, double seconds) noexcept
    cpdef int wait(self, int first, int second, double seconds) except -1
