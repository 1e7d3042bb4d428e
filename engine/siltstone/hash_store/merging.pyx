"""Merges the records of several hash stores of one shard into one ascending stream, in bounded memory."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

from siltstone.format.kernels cimport load_be16
from siltstone.hash_store.older cimport Older, OlderStores, find_older
from siltstone.hash_store.order cimport hash_of
from siltstone.hash_store.page cimport (
    COUNT_AT, FIRST_RECORD_PAGE, PAGE, RECORD_PART, USED_AT, compare_keys, holds_records, is_sealed)
from siltstone.hash_store.search cimport KEY_ABSENT, KEY_PRESENT, Held, Store, is_tombstone, page_at
from siltstone.hash_store.view cimport HashStoreView
from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport ENTRY_MAX, TYPE_DELETE

cdef struct Cursor:
    Store *store
    uint32_t page           # that is being read
    uint32_t used           # bytes of entries in it
    uint32_t at             # of the entry that is next
    uint64_t hashed         # of its key
    uint64_t seen           # entries that were next, this one too
    uint64_t entries        # that the header says there are
    bint over
    uint8_t copy[4096]      # of the page: what was verified is what is read
    uint8_t last[256]       # entry before the first one of the page

cdef struct Work:
    Cursor *cursors
    uint32_t count
    uint8_t *out
    Py_ssize_t room
    Py_ssize_t size         # of what was written
    bint drop_deletes
    Older *below            # older stores that stay, or NULL
    uint32_t where          # the cursor that is read, for an error
    bint damaged


cdef bint open_page(Cursor *cursor) noexcept nogil:
    """Copy a page and verify the copy; False where it is damaged."""
    memcpy(cursor.copy, page_at(cursor.store, cursor.page), PAGE)
    if (not is_sealed(cursor.copy, cursor.page + FIRST_RECORD_PAGE, RECORD_PART, cursor.store.secret)
            or not holds_records(cursor.copy)):
        return False
    cursor.used, cursor.at = load_be16(cursor.copy + USED_AT), 0
    return True


cdef bint step(Cursor *cursor) noexcept nogil:
    """Go on to the next entry; False where it is no entry that may stand there."""
    cdef const uint8_t *before = cursor.copy + cursor.at
    cdef uint64_t hashed
    cursor.at += before[0]
    if cursor.at == cursor.used:
        memcpy(cursor.last, before, before[0])
        before = cursor.last
        cursor.page += 1
        if cursor.page == cursor.store.pages:
            cursor.over = True
            return cursor.seen == cursor.entries
        if not open_page(cursor):
            return False
    if not hash_of(cursor.store, cursor.copy + cursor.at, &hashed):
        return False
    if cursor.at == 0 and hashed != cursor.store.fences[cursor.page]:
        return False
    if hashed < cursor.hashed or (hashed == cursor.hashed and compare_keys(
            &cursor.store.keys, before, cursor.copy + cursor.at) >= 0):
        return False
    cursor.hashed = hashed
    cursor.seen += 1
    return True


cdef bint begin(Cursor *cursor) noexcept nogil:
    """Go to the first entry; False where it is no entry that may stand there."""
    cursor.over = cursor.store.pages == 0
    if cursor.over:
        return True
    cursor.seen = 1
    return (open_page(cursor) and hash_of(cursor.store, cursor.copy, &cursor.hashed)
            and cursor.hashed == cursor.store.fences[0])


cdef inline int compare(Cursor *a, Cursor *b) noexcept nogil:
    """The order of the entries that two cursors are at."""
    if a.hashed != b.hashed:
        return -1 if a.hashed < b.hashed else 1
    return compare_keys(&a.store.keys, a.copy + a.at, b.copy + b.at)


cdef bint is_needed(Work *work, const uint8_t *tombstone, uint64_t hashed) noexcept nogil:
    """Whether a tombstone that hid a put of its key here hides another one below."""
    cdef uint8_t entry[256]
    cdef uint32_t which, cluster
    cdef Held held
    if work.below == NULL:
        return True
    held = find_older(work.below, hashed, tombstone[2], tombstone + 3, tombstone[0] - 3, entry, &which, &cluster)
    return held != KEY_ABSENT and not (held == KEY_PRESENT and is_tombstone(entry))


cdef void begin_guarded(void *argument) noexcept nogil:
    cdef Work *work = <Work *>argument
    for work.where in range(work.count):
        if not begin(&work.cursors[work.where]):
            work.damaged = True
            return


cdef void merge_guarded(void *argument) noexcept nogil:
    """Write entries until `out` may not hold the next one, or all are written."""
    cdef Work *work = <Work *>argument
    cdef Cursor *newest
    cdef Cursor *other
    cdef uint32_t i
    cdef int order
    cdef bint alone
    cdef const uint8_t *entry
    cdef uint8_t wanted[256]
    cdef uint64_t hashed
    while work.room - work.size >= ENTRY_MAX:
        newest, alone = NULL, True
        for i in range(work.count):
            other = &work.cursors[i]
            if other.over:
                continue
            order = -1 if newest == NULL else compare(other, newest)
            if order < 0:
                newest, work.where, alone = other, i, True
            elif order == 0:
                alone = False
        if newest == NULL:
            return
        entry = newest.copy + newest.at
        memcpy(wanted, entry, entry[0])
        # Each tombstone that is kept stands for one put below: who counts keys goes by that.
        if wanted[1] != TYPE_DELETE or not (
                work.drop_deletes or (not alone and not is_needed(work, wanted, newest.hashed))):
            memcpy(work.out + work.size, wanted, wanted[0])
            work.size += wanted[0]
        if not alone:
            # What older stores say of this key is over.
            i, hashed = work.where, newest.hashed
            for work.where in range(i + 1, work.count):
                other = &work.cursors[work.where]
                if not other.over and other.hashed == hashed and compare_keys(
                        &other.store.keys, other.copy + other.at, wanted) == 0 and not step(other):
                    work.damaged = True
                    return
            work.where = i
        if not step(newest):
            work.damaged = True
            return


cdef class Merging:
    """Where a merge stands: a cursor in each store."""

    cdef list views
    cdef OlderStores below
    cdef Cursor *cursors
    cdef Work work

    def __cinit__(self):
        self.cursors = NULL

    def __init__(self, views, bint drop_deletes, OlderStores below):
        cdef HashStoreView view
        cdef HashStoreView first
        self.views = list(views)
        if not self.views:
            raise ValueError("no hash stores to merge")
        first = self.views[0]
        self.cursors = <Cursor *>calloc(len(self.views), sizeof(Cursor))
        if self.cursors == NULL:
            raise MemoryError(f"no memory to merge {len(self.views)} hash stores")
        for i, view in enumerate(self.views):
            if view.types is not first.types or (view.store.keys.k0, view.store.keys.k1) != (
                    first.store.keys.k0, first.store.keys.k1):
                raise ValueError("hash stores with other types of keys or another secret")
            self.cursors[i].store = &view.store
            self.cursors[i].entries = view.header.entries
        self.work.cursors, self.work.count = self.cursors, <uint32_t>len(self.views)
        self.work.drop_deletes = drop_deletes
        self.below = below
        self.work.below = NULL if below is None else &below.older
        self.run(begin_guarded)

    def __dealloc__(self):
        free(self.cursors)

    cdef int run(self, void (*part)(void *) noexcept nogil) except -1:
        cdef int failed
        cdef Cursor *cursor
        cdef HashStoreView view
        with nogil:
            failed = guarded(part, &self.work)
        if not failed and not self.work.damaged:
            return 0
        cursor = &self.cursors[self.work.where]
        view = self.views[self.work.where]
        if failed:
            raise unreadable(f"merging hash store {view.extent}")
        if cursor.over:
            raise view.damage(0, f"it has {cursor.seen} entries, not the {cursor.entries} that its header says")
        raise view.damage(cursor.page + FIRST_RECORD_PAGE, "damaged; it was durable")

    def fill(self, uint8_t[::1] out not None):
        """Write the next entries to `out`; how many bytes, 0 at the end."""
        self.work.out, self.work.room, self.work.size = &out[0], out.shape[0], 0
        self.run(merge_guarded)
        return self.work.size


def merge(views, *, bint drop_deletes=False, OlderStores below=None, Py_ssize_t chunk_bytes=1 << 20):
    """Yield the newest entry of each key of some hash stores in chunks of packed entries, in ascending order.

    Each chunk is an array (n,) of uint8, n at most `chunk_bytes`, and the caller's own. It takes a chunk and about
    4.5 KiB a store; each page is verified as it is read. A record takes time in proportion to the number of stores.
    DamageError where a page is damaged, MediumError where one cannot be read: what was yielded before is right.

    :param views: HashStoreViews with the same types and secret, the newest first; kept until the end
    :param drop_deletes: leave tombstones out, where nothing older than these stores is kept anywhere
    :param below: the older stores that stay: a tombstone that hid a put in `views` goes unless it hides one there, so
        that each that is kept stands for one put below it. Without them all are kept
    """
    if chunk_bytes < ENTRY_MAX:
        raise ValueError(f"chunks of {chunk_bytes} bytes: an entry may have {ENTRY_MAX}")
    merging = Merging(views, drop_deletes, below)
    while True:
        chunk = np.empty(chunk_bytes, np.uint8)
        size = merging.fill(chunk)
        if not size:
            return
        yield chunk[:size]
