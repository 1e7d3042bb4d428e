"""The hash stores of a shard, newest first, as compiled code looks into them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from siltstone.hash_store.filter cimport Cells, expect_cells, may_hold
from siltstone.hash_store.search cimport (
    KEY_ABSENT, KEY_PRESENT, PAGE_DAMAGED, Held, Store, expect_page, find)
from siltstone.index.layout cimport OLDER_MAX

# Never changes once an index has it.
cdef struct Older:
    uint64_t version            # of the list that it was made from
    uint32_t count
    uint32_t reserved
    Store *stores[OLDER_MAX]


cdef inline Held find_older(Older *older, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out,
                            uint32_t *which, uint32_t *damaged) noexcept nogil:
    """What the newest of the stores that knows a key says of it; PAGE_DAMAGED with the store and its cluster."""
    cdef Cells cells
    cdef Held held
    for which[0] in range(older.count):
        expect_cells(&older.stores[which[0]].filter, hashed, &cells)
        if may_hold(&older.stores[which[0]].filter, &cells):
            held = find(older.stores[which[0]], expect_page(older.stores[which[0]], hashed), hashed, kind, key, size, out,
                        damaged)
            if held != KEY_ABSENT:
                return held
    return KEY_ABSENT


cdef class OlderStores:
    cdef Older older
    cdef readonly tuple views
