"""What the writer's and a viewer's side of an index have in common."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from siltstone.index.layout cimport JOURNALS, Map, OlderHolds, Seals, Table
from siltstone.index.types cimport KeyTypes


# A view that was replaced may still be read by a lookup that has begun. Lookups count themselves under the parity
# of the turn that they began in; a turn ends when none of the turn before it is left, so that two turns after a
# view was replaced nobody reads it. All of it is touched under the interpreter lock only.
cdef struct Turns:
    uint64_t now
    Py_ssize_t running[2]


cdef Turns *all_turns() noexcept


cdef inline int begin_lookup(Turns *turns) noexcept:
    """Say that this thread starts to read maps; what it gets is for end_lookup."""
    turns.running[turns.now & 1] += 1
    return turns.now & 1


cdef inline void end_lookup(Turns *turns, int turn) noexcept:
    """Say that it reads them no longer."""
    turns.running[turn] -= 1


cdef class MappedIndex:
    cdef Table table
    cdef Map maps[JOURNALS]
    cdef list views
    cdef readonly object older      # the hash stores, which `table.older` points into
    cdef list replaced
    cdef bytes volume
    cdef object loader              # brings slots back that wait on the medium, see segments.expect
    cdef Py_ssize_t waiting         # segments that wait for them
    cdef object memory
    cdef const uint8_t[::1] bytes_view
    cdef readonly KeyTypes types

    cdef int lay_out(self, memory, KeyTypes types, const uint8_t[::1] secret, Py_ssize_t segments,
                     Py_ssize_t window_bytes) except -1
    cdef int check_journal(self, int journal) except -1
    cdef int set_map(self, int journal, view, uint64_t life, seals=*) except -1
    cdef object seals_of(self, uint32_t extent, uint64_t generation)
    cdef object damage(self, int journal, uint32_t cluster)
    cdef int take_older(self, older, void *stores, OlderHolds holds) except -1
    cdef int renew_older(self) except -1
    cdef int drop_replaced(self) except -1
    cdef int load(self, Py_ssize_t segment) except -1
    cdef int map_again(self, int journal) except -1
