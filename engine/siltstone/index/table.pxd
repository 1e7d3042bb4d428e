"""What compiled code elsewhere does with the index of a shard."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from siltstone.index.layout cimport JOURNALS, Table, Tally
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.search cimport Patience


cdef struct Run:
    Table *table
    const uint8_t *stream
    Py_ssize_t size
    uint64_t *positions
    uint64_t place
    bint shared
    int64_t others
    int64_t unknown
    int64_t done
    Patience patience


cdef class LogIndex(MappedIndex):
    cdef bint shared
    cdef Tally tallies[JOURNALS]

    cdef uint32_t first_buckets(self, Py_ssize_t segment)
    cdef void show_tail(self, int journal, uint32_t index, const uint8_t *tail, uint32_t start, uint32_t end) noexcept
    cdef int carry_out(self, void (*act)(void *) noexcept nogil, Run *run, int journal, const uint8_t[::1] stream,
                       uint64_t[::1] positions, uint64_t first=*) except -1
    cdef void begin_run(self, Run *run, int journal, const uint8_t *stream, Py_ssize_t size, uint64_t first) noexcept
    cdef bint may_know(self, const uint8_t *stream, Py_ssize_t size) noexcept
    cdef int apply_few(self, int journal, const uint8_t *stream, Py_ssize_t size, uint64_t first) except -1
    cdef int check_done(self, Run *run) except -1
