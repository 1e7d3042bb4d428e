cdef double now() noexcept nogil

cpdef int wait_readable(int first, int second, double seconds, double awake) except -1
