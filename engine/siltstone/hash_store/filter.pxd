"""The filter of a hash store: a binary fuse filter (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor
Filters", 2022) with four cells of eight bits a hash.

The exclusive or of the four cells of a hash that is in it is the hash's fingerprint; of any other hash it is by
chance, one time in 256. The cells lie in four neighbouring segments, one in each, so that they are close together.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from siltstone.index.layout cimport mix, prefetch

cdef extern from * nogil:
    """
    static inline uint64_t high_product(uint64_t a, uint64_t b) {
        return (uint64_t)(((unsigned __int128)a * b) >> 64);
    }
    """
    uint64_t high_product(uint64_t a, uint64_t b)

cdef struct Filter:
    const uint8_t *cells
    uint64_t seed
    uint64_t starts         # cells that may be the first of the four
    uint32_t segment        # cells of a segment: a power of two
    uint32_t reserved

cdef struct Cells:
    uint32_t at[4]
    uint8_t fingerprint


cdef inline uint64_t mixed_by(uint64_t hashed, uint64_t seed) noexcept nogil:
    """The hash under a seed of the filter; no two hashes become one."""
    return mix(hashed ^ seed)


cdef inline void cells_of(const Filter *filter, uint64_t mixed, Cells *cells) noexcept nogil:
    """Where the four cells of a mixed hash lie, always inside the filter, and its fingerprint."""
    # The upper bits of the product depend on all bits below them: three offsets of up to 18 bits, apart from `first`.
    cdef uint64_t spread = mixed * <uint64_t>0x9E3779B97F4A7C15
    cdef uint32_t mask = filter.segment - 1, segment = filter.segment
    cdef uint32_t first = <uint32_t>high_product(mixed, filter.starts)
    cells.at[0] = first
    cells.at[1] = (first + segment) ^ (<uint32_t>(spread >> 46) & mask)
    cells.at[2] = (first + 2 * segment) ^ (<uint32_t>(spread >> 28) & mask)
    cells.at[3] = (first + 3 * segment) ^ (<uint32_t>(spread >> 10) & mask)
    cells.fingerprint = <uint8_t>(mixed ^ (mixed >> 32))


cdef inline void expect_cells(const Filter *filter, uint64_t hashed, Cells *cells) noexcept nogil:
    """Find the cells of a hash and have them fetched, for `may_hold`."""
    cells_of(filter, mixed_by(hashed, filter.seed), cells)
    prefetch(filter.cells + cells.at[0])
    prefetch(filter.cells + cells.at[1])
    prefetch(filter.cells + cells.at[2])
    prefetch(filter.cells + cells.at[3])


cdef inline bint may_hold(const Filter *filter, const Cells *cells) noexcept nogil:
    """False where the hash of these cells is surely not in the filter."""
    return cells.fingerprint == (filter.cells[cells.at[0]] ^ filter.cells[cells.at[1]]
                                 ^ filter.cells[cells.at[2]] ^ filter.cells[cells.at[3]])


cdef enum:
    FILTER_BUILT = 0
    FILTER_NO_MEMORY = 1
    FILTER_NOT_FOUND = 2


cdef int build_filter(Filter *filter, uint8_t *cells, const uint64_t *hashes, uint64_t count) noexcept nogil
