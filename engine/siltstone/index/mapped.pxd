"""What the writer's and a viewer's side of an index have in common."""

from libc.stdint cimport uint8_t, uint64_t

from siltstone.index.layout cimport JOURNALS, Map, Table
from siltstone.index.types cimport KeyTypes


cdef class MappedIndex:
    cdef Table table
    cdef Map maps[JOURNALS]
    cdef list views
    cdef list replaced
    cdef object memory
    cdef const uint8_t[::1] bytes_view
    cdef readonly KeyTypes types

    cdef int lay_out(self, memory, KeyTypes types, const uint8_t[::1] secret, Py_ssize_t segments,
                     Py_ssize_t window_bytes) except -1
    cdef int check_journal(self, int journal) except -1
    cdef int set_map(self, int journal, view, uint64_t life) except -1
    cdef int drop_replaced(self) except -1
    cdef int map_again(self, int journal) except -1


cdef int begin_lookup() noexcept
cdef void end_lookup(int turn) noexcept
