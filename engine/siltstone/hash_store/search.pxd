"""Looking for keys in a hash store, in stages, so that whoever looks for many waits for memory once for all of them.

For one key, in this order, each stage for all keys of a chunk before the next:

1. `expect_cells(&store.filter, hash, &cells)` has the cells of the filter fetched
2. `may_hold(&store.filter, &cells)`: False ends it, the key is not there
3. `expect_page(store, hash)` is the page, or -1: not there; its tags are fetched
4. `expect_entry(store, page, hash)` has the entry fetched that the tags point to; may be left out
5. `find(store, page, hash, kind, key, size, out, &damaged)` is the answer

A store that says KEY_PRESENT ends the search for a key, tombstone or not: older ones know only what was before.

Stages 4 and 5 read the mapped extent: call them inside `guarded` (index/guard.pxd). Nothing here takes a lock or
memory, so that they may be left at any instruction. Any number of threads may share a Store; who has one keeps the
HashStoreView alive that it belongs to.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from siltstone.hash_store.filter cimport Cells, Filter, expect_cells, may_hold
from siltstone.hash_store.page cimport (
    FIRST_RECORD_PAGE, LAST_TAG, PAGE, RECORD_PART, copy_entry, entry_at, has_key, holds_records, is_sealed,
    next_with_tag)
from siltstone.index.layout cimport TYPE_DELETE, Table, load_relaxed, prefetch

cdef extern from * nogil:
    """
    #define set_bits(word, bits) __atomic_fetch_or((word), (bits), __ATOMIC_RELAXED)
    """
    uint64_t set_bits(uint64_t *word, uint64_t bits)

# How it stands with a key in one store. A tombstone is KEY_PRESENT too: `is_tombstone` tells.
ctypedef enum Held:
    KEY_ABSENT = 0
    KEY_PRESENT = 1
    PAGE_DAMAGED = 2

cdef struct Store:
    const uint8_t *base         # of the extent, mapped: may change or be unreadable
    uint32_t pages              # record pages
    int shift                   # with these an interpolation needs no division
    uint64_t scale
    const uint64_t *fences      # of each record page the hash of its first entry, ascending; private memory
    uint64_t *verified          # a bit for each record page
    const uint8_t *secret       # of the seals
    Filter filter               # cells in private memory
    Table keys                  # only where keys lie in entries, and the secret of their hashes


cdef inline bint is_tombstone(const uint8_t *entry) noexcept nogil:
    """Whether an entry that was found says that its key is deleted."""
    return entry[1] == TYPE_DELETE


cdef inline const uint8_t *page_at(const Store *store, uint32_t page) noexcept nogil:
    """Where a record page lies."""
    return store.base + (<uint64_t>page + FIRST_RECORD_PAGE) * PAGE


cdef inline int64_t page_of(const Store *store, uint64_t hashed) noexcept nogil:
    """The last record page whose first hash is not greater, or -1: guessed, then found by steps and halves."""
    cdef const uint64_t *fences = store.fences
    cdef uint64_t low, high, step = 1, middle
    if store.pages == 0 or hashed < fences[0]:
        return -1
    if hashed >= fences[store.pages - 1]:
        return store.pages - 1
    # fences[low] <= hashed < fences[high] holds at the end of each branch.
    low = (((hashed - fences[0]) >> store.shift) * store.scale) >> 32
    if low > store.pages - 2:
        low = store.pages - 2
    if fences[low] <= hashed:
        high = low + 1
        while fences[high] <= hashed:
            low = high
            high = low + step
            if high > store.pages - 1:
                high = store.pages - 1
            step *= 2
    else:
        high = low
        low = high - 1
        while fences[low] > hashed:
            high = low
            low = high - step if high > step else 0
            step *= 2
    while high - low > 1:
        middle = (low + high) >> 1
        if fences[middle] <= hashed:
            low = middle
        else:
            high = middle
    return <int64_t>low


cdef inline int64_t expect_page(const Store *store, uint64_t hashed) noexcept nogil:
    """The page of a hash, with its seal and the tags of its first 96 entries fetched; or -1: it holds no such hash."""
    cdef int64_t page = page_of(store, hashed)
    if page >= 0:
        prefetch(page_at(store, <uint32_t>page) + LAST_TAG)
        prefetch(page_at(store, <uint32_t>page) + LAST_TAG - 64)
    return page


cdef inline void expect_entry(const Store *store, int64_t page, uint64_t hashed) noexcept nogil:
    """Have the first entry fetched that has the tag of a hash."""
    cdef const uint8_t *start = page_at(store, <uint32_t>page)
    cdef int number = next_with_tag(start, hashed, 0), at
    if number >= 0:
        at = entry_at(start, number)
        if at >= 0:
            prefetch(start + at)
            prefetch(start + at + 49)


cdef inline bint is_verified(Store *store, uint32_t page) noexcept nogil:
    """Whether a record page is what was written; checked when it is first asked for, be it by two threads at once."""
    cdef uint64_t *word = &store.verified[page >> 6]
    cdef uint64_t bit = <uint64_t>1 << (page & 63)
    cdef const uint8_t *start
    if load_relaxed(word) & bit:
        return True
    start = page_at(store, page)
    if not is_sealed(start, page + FIRST_RECORD_PAGE, RECORD_PART, store.secret) or not holds_records(start):
        return False
    set_bits(word, bit)
    return True


cdef inline Held find(Store *store, int64_t page, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out,
                      uint32_t *damaged) noexcept nogil:
    """KEY_PRESENT with the entry in `out` (256 bytes), KEY_ABSENT, or PAGE_DAMAGED with the cluster in `damaged`.

    `page` is what `expect_page` said of this hash.
    """
    cdef const uint8_t *start
    cdef int number
    while page >= 0:
        start = page_at(store, <uint32_t>page)
        damaged[0] = <uint32_t>page + FIRST_RECORD_PAGE
        if not is_verified(store, <uint32_t>page):
            return PAGE_DAMAGED
        number = next_with_tag(start, hashed, 0)
        while number >= 0:
            if not copy_entry(start, number, out):
                return PAGE_DAMAGED
            if has_key(&store.keys, out, kind, key, size):
                return KEY_PRESENT
            number = next_with_tag(start, hashed, number + 1)
        # Entries of one hash may begin in the page before.
        if store.fences[page] != hashed:
            break
        page -= 1
    return KEY_ABSENT
