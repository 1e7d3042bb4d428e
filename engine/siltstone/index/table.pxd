"""The writer's side of an index."""

from libc.stdint cimport uint8_t

from siltstone.index.layout cimport JOURNALS, Table
from siltstone.index.types cimport KeyTypes


cdef class LogIndex:
    cdef Table table
    cdef const uint8_t *bases[JOURNALS]
    cdef list views
    cdef object memory
    cdef uint8_t[::1] bytes_view
    cdef readonly KeyTypes types
    cdef bint shared
    cdef int check_journal(self, int journal) except -1
