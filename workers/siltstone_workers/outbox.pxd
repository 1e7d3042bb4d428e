from libc.stdint cimport uint64_t

cdef class Outbox:
    cdef dict waiting
    cdef readonly Py_ssize_t bytes

    cpdef int add(self, int shard, uint64_t sequence, stream, uint64_t records) except -1
    cdef Py_ssize_t needed(self) noexcept
    cdef void forget(self) noexcept
    cpdef list messages(self)
