"""The hash stores of a shard, newest first, as compiled code looks into them.

Each lies in parts, every one of which has the entries from one hash on up to where the next begins.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from siltstone.hash_store.filter cimport Cells, expect_cells, may_hold
from siltstone.hash_store.search cimport (
    KEY_ABSENT, KEY_PRESENT, PAGE_DAMAGED, Held, Store, expect_page, find)
from siltstone.index.layout cimport OLDER_MAX, PARTS_MAX

# Never changes once an index has it.
cdef struct Older:
    uint64_t version                # of the list that it was made from
    uint32_t count                  # hash stores
    uint32_t begins[OLDER_MAX + 1]  # the first part of each, and one behind the last
    uint64_t firsts[PARTS_MAX]      # entries of a part with a smaller hash do not count
    Store *parts[PARTS_MAX]


cdef inline int64_t part_of(const Older *older, uint32_t which, uint64_t hashed) noexcept nogil:
    """The part of a hash store that a hash belongs to, or -1: it has no such hash."""
    cdef uint32_t low = older.begins[which], high = older.begins[which + 1], middle
    if hashed < older.firsts[low]:
        return -1
    while high - low > 1:
        middle = (low + high) >> 1
        if older.firsts[middle] <= hashed:
            low = middle
        else:
            high = middle
    return low


cdef inline Held find_older(Older *older, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out,
                            uint32_t *part, uint32_t *damaged) noexcept nogil:
    """What the newest of the stores that knows a key says of it; PAGE_DAMAGED with the part and its cluster."""
    cdef Cells cells
    cdef Held held
    cdef Store *store
    cdef int64_t found
    cdef uint32_t which
    for which in range(older.count):
        found = part_of(older, which, hashed)
        if found < 0:
            continue
        store = older.parts[found]
        expect_cells(&store.filter, hashed, &cells)
        if may_hold(&store.filter, &cells):
            part[0] = <uint32_t>found
            held = find(store, expect_page(store, hashed), hashed, kind, key, size, out, damaged)
            if held != KEY_ABSENT:
                return held
    return KEY_ABSENT


cdef class OlderStores:
    cdef Older older
    cdef readonly tuple parts
    cdef readonly tuple listing
