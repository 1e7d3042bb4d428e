"""Building the filter of a hash store; what it is stands in filter.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

import numpy as np

from siltstone.errors import StateError
from siltstone.hash_store.extent import FilterShape

from siltstone.index.layout cimport prefetch

cdef enum:
    # Of a hundred hashes every sixth set needs a second seed, of 10,000 hardly one: so many seeds that do not do are
    # no chance, but hashes that are not random.
    ATTEMPTS = 64
    AHEAD = 32

#: bytes of memory for each cell, and for each hash besides, while a filter is built
CELL_BYTES = 1 + 1 + 8 + 4
HASH_BYTES = 8 + 4


cdef struct Work:
    uint8_t *counts         # per cell: hashes that lie in it and were not peeled off
    uint64_t *sums          # per cell: exclusive or of these
    uint32_t *alone         # cells that hold one hash, to be peeled
    uint64_t *peeled        # hashes in the order of peeling, and the cell that each was alone in
    uint32_t *owned


cdef bint count_cells(const Filter *filter, Work *work, const uint64_t *hashes, uint64_t count) noexcept nogil:
    """Let each cell know its hashes; False where too many lie in one."""
    cdef Cells cells[AHEAD]
    cdef uint64_t mixed[AHEAD]
    cdef uint64_t begin = 0, part, i
    cdef int k
    while begin < count:
        part = count - begin if count - begin < AHEAD else AHEAD
        for i in range(part):
            mixed[i] = mixed_by(hashes[begin + i], filter.seed)
            cells_of(filter, mixed[i], &cells[i])
            for k in range(4):
                prefetch(&work.counts[cells[i].at[k]])
                prefetch(&work.sums[cells[i].at[k]])
        for i in range(part):
            for k in range(4):
                if work.counts[cells[i].at[k]] == 255:
                    return False
                work.counts[cells[i].at[k]] += 1
                work.sums[cells[i].at[k]] ^= mixed[i]
        begin += part
    return True


cdef uint64_t peel(const Filter *filter, Work *work, uint64_t size) noexcept nogil:
    """Take away, again and again, a hash that is alone in a cell; how many could be taken."""
    cdef uint64_t found = 0, done = 0, peeled = 0, mixed
    cdef uint32_t cell, other
    cdef Cells cells
    cdef int k
    for cell in range(<uint32_t>size):
        if work.counts[cell] == 1:
            work.alone[found] = cell
            found += 1
    # Each cell comes to hold one hash at most once.
    while done < found:
        cell = work.alone[done]
        done += 1
        if work.counts[cell] != 1:
            continue
        mixed = work.sums[cell]
        work.peeled[peeled], work.owned[peeled] = mixed, cell
        peeled += 1
        cells_of(filter, mixed, &cells)
        for k in range(4):
            other = cells.at[k]
            work.counts[other] -= 1
            work.sums[other] ^= mixed
            if work.counts[other] == 1:
                work.alone[found] = other
                found += 1
    return peeled


cdef void assign(const Filter *filter, uint8_t *values, Work *work, uint64_t count) noexcept nogil:
    """Give each hash its fingerprint, the last one peeled first: none after it has the cell that it was alone in."""
    cdef Cells cells
    cdef uint64_t i
    cdef uint32_t own
    cdef uint8_t value
    for i in range(count, 0, -1):
        own = work.owned[i - 1]
        cells_of(filter, work.peeled[i - 1], &cells)
        values[own] = 0
        value = cells.fingerprint
        value ^= values[cells.at[0]] ^ values[cells.at[1]] ^ values[cells.at[2]] ^ values[cells.at[3]]
        values[own] = value


cdef int build_filter(Filter *filter, uint8_t *cells, const uint64_t *hashes, uint64_t count) noexcept nogil:
    """Fill the `cells` of a filter whose shape is set with `count` different hashes, and set its seed.

    The seeds are tried in one order, so the same hashes make the same filter. It takes CELL_BYTES - 1 for each
    cell and HASH_BYTES for each hash while it runs.
    """
    cdef uint64_t size = filter.starts + 3 * <uint64_t>filter.segment
    cdef Work work
    cdef int attempt, result = FILTER_NOT_FOUND
    work.counts = <uint8_t *>calloc(size, 1)
    work.sums = <uint64_t *>calloc(size, 8)
    work.alone = <uint32_t *>malloc(size * 4)
    work.peeled = <uint64_t *>malloc(count * 8 + 8)
    work.owned = <uint32_t *>malloc(count * 4 + 4)
    filter.cells = cells
    if (work.counts == NULL or work.sums == NULL or work.alone == NULL or work.peeled == NULL or work.owned == NULL):
        result = FILTER_NO_MEMORY
    else:
        for attempt in range(ATTEMPTS):
            filter.seed = <uint64_t>0xD1B54A32D192ED03 * <uint64_t>(attempt + 1)
            if attempt:
                memset(work.counts, 0, size)
                memset(work.sums, 0, size * 8)
            if count_cells(filter, &work, hashes, count) and peel(filter, &work, size) == count:
                memset(cells, 0, size)
                assign(filter, cells, &work, count)
                result = FILTER_BUILT
                break
    free(work.counts)
    free(work.sums)
    free(work.alone)
    free(work.peeled)
    free(work.owned)
    return result


cdef class FuseFilter:
    """A filter by itself, of any set of 64-bit hashes, in memory.

    :param hashes: (n,) different hashes; StateError where no filter is found for them, as for equal ones
    """

    cdef Filter filter
    cdef readonly object cells
    cdef readonly object shape

    def __init__(self, const uint64_t[::1] hashes not None):
        cdef uint8_t[::1] values
        cdef const uint64_t *first = NULL
        cdef uint64_t count = hashes.shape[0]
        cdef int result
        self.shape = FilterShape.of(count)
        self.cells = np.zeros(self.shape.cells, np.uint8)
        values = self.cells
        if count:
            first = &hashes[0]
        self.filter.segment = <uint32_t>1 << <int>self.shape.segment_bits
        self.filter.starts = <uint64_t>self.shape.segments * self.filter.segment
        with nogil:
            result = build_filter(&self.filter, &values[0], first, count)
        if result == FILTER_NO_MEMORY:
            raise MemoryError(f"no memory to build a filter of {count} hashes")
        if result == FILTER_NOT_FOUND:
            raise StateError(f"no filter was found for {count} hashes with {ATTEMPTS} seeds", what="filter",
                             state="not found")

    @property
    def seed(self):
        """The seed that it was found with."""
        return self.filter.seed

    def may_hold(self, const uint64_t[::1] hashes not None):
        """(n,) bool: False where a hash is surely not in it."""
        answers = np.empty(hashes.shape[0], np.uint8)
        cdef uint8_t[::1] flags = answers
        cdef Cells cells
        cdef Py_ssize_t i
        with nogil:
            for i in range(hashes.shape[0]):
                cells_of(&self.filter, mixed_by(hashes[i], self.filter.seed), &cells)
                flags[i] = may_hold(&self.filter, &cells)
        return answers.view(bool)
