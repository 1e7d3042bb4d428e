from libc.stdint cimport uint64_t

cdef struct OnItsWay:
    uint64_t sequence, size, records


cdef class Ledger:
    cdef readonly int shard
    cdef readonly object pending
    cdef uint64_t sequence
    #: a ring: batches under way from the `first` to before the `end`, each at its number modulo the count
    cdef OnItsWay *places
    cdef uint64_t count, first, end
    #: of what is under way
    cdef uint64_t bytes, records
    #: as of the last news, and their number
    cdef uint64_t room, records_room, news

    cpdef bint surely_fits(self, uint64_t size, uint64_t records) noexcept
    cpdef uint64_t next_sequence(self) noexcept
    cpdef send(self, uint64_t sequence, stream, uint64_t records, bint visible)
    cdef int grow(self) except -1
    cpdef int progress(self, uint64_t number, uint64_t sequence, uint64_t room, uint64_t records) except -1
