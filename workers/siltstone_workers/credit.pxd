from siltstone.locks cimport Sleepers

cdef enum:
    HEAD_CREDIT = 64


cdef inline Py_ssize_t credit_of(Py_ssize_t bulk_size) noexcept:
    """As :func:`siltstone_workers.frames.credit_of`."""
    return bulk_size + HEAD_CREDIT


cdef class Credit:
    cdef readonly Py_ssize_t window, left
    cdef bint is_over
    cdef Sleepers sleepers

    cpdef bint take(self, Py_ssize_t size, double seconds) except -1
    cdef bint wait_for(self, Py_ssize_t needed, double seconds) except -1
    cpdef int give(self, Py_ssize_t size) except -1
