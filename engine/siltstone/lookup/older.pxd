"""The part of a lookup that goes on in hash stores, for keys that the index knows nothing of.

A key leaves the index only after the hash store that has it was listed; so whoever found nothing in the index looks
at the list as it is after that. And an extent is given to somebody else only after the list has changed: what was
found counts if the list is the same behind it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from siltstone.hash_store.filter cimport Cells, expect_cells, may_hold
from siltstone.hash_store.older cimport Older, find_older, part_of
from siltstone.hash_store.search cimport (
    KEY_ABSENT, KEY_PRESENT, PAGE_DAMAGED, Held, Store, expect_entry, expect_page, find)
from siltstone.index.layout cimport CHUNK, Table, load_acquire, unchanged

ctypedef enum InOlder:
    NOWHERE = 0
    SOMEWHERE = 1
    OTHER_STORES = 2    # this process has not opened those that are listed
    DAMAGED_STORE = 3

# Keys of a chunk that the index knows nothing of.
cdef struct Missed:
    int count
    int keys[CHUNK]             # which of the chunk
    Older *older[CHUNK]
    uint64_t seen[CHUNK]        # the version of the list, for each
    int64_t parts[CHUNK]        # of the store that is asked; -1: it has no such hash
    int64_t pages[CHUNK]
    Cells cells[CHUNK]


cdef inline bint open_older(Table *table, uint64_t *seen, Older **older) noexcept nogil:
    """The hash stores that are listed now, NULL where there are none; False where they are not open here."""
    seen[0] = load_acquire(&table.listed.sequence)
    older[0] = NULL
    if seen[0] == 0:
        return True
    older[0] = <Older *>load_acquire(<uint64_t *>&table.older)
    return not seen[0] & 1 and older[0] != NULL and older[0].version == seen[0]


cdef inline InOlder ask_older(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out,
                              uint32_t *part, uint32_t *cluster) noexcept nogil:
    """What the hash stores say of one key: SOMEWHERE with the entry in `out`, which may be a tombstone."""
    cdef uint64_t seen
    cdef Older *older
    cdef Held held
    if not open_older(table, &seen, &older):
        return OTHER_STORES
    if older == NULL:
        return NOWHERE
    held = find_older(older, hashed, kind, key, size, out, part, cluster)
    if not unchanged(&table.listed.sequence, seen):
        return OTHER_STORES
    if held == PAGE_DAMAGED:
        return DAMAGED_STORE
    return SOMEWHERE if held == KEY_PRESENT else NOWHERE


cdef inline void expect_level(Missed *missed, uint32_t level, const uint64_t *hashes) noexcept nogil:
    """Ask the filters of the stores at one level, and have what the next step reads fetched."""
    cdef Store *store
    cdef int i
    for i in range(missed.count):
        missed.parts[i] = -1
        if missed.older[i].count > level:
            missed.parts[i] = part_of(missed.older[i], level, hashes[missed.keys[i]])
            if missed.parts[i] >= 0:
                expect_cells(&missed.older[i].parts[missed.parts[i]].filter, hashes[missed.keys[i]], &missed.cells[i])
    for i in range(missed.count):
        missed.pages[i] = -1
        if missed.parts[i] >= 0:
            store = missed.older[i].parts[missed.parts[i]]
            if may_hold(&store.filter, &missed.cells[i]):
                missed.pages[i] = expect_page(store, hashes[missed.keys[i]])
    for i in range(missed.count):
        if missed.pages[i] >= 0:
            expect_entry(missed.older[i].parts[missed.parts[i]], missed.pages[i], hashes[missed.keys[i]])


cdef inline void keep_missed(Missed *missed, int into, int i) noexcept nogil:
    missed.keys[into], missed.older[into], missed.seen[into] = missed.keys[i], missed.older[i], missed.seen[i]
