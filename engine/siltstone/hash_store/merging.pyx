"""Merges the records of several hash stores of one shard into one ascending stream, in bounded memory.

It stops where it is told to, between two hashes, and says what is left of each: so a merge is done in slices, each of
which is on the medium before the next begins.
"""

from typing import NamedTuple

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

from siltstone.format.kernels cimport load_be16
from siltstone.hash_store.older cimport Older, OlderStores, find_older
from siltstone.hash_store.order cimport hash_of
from siltstone.hash_store.page cimport (
    COUNT_AT, FIRST_RECORD_PAGE, PAGE, RECORD_PART, USED_AT, compare_keys, holds_records, is_sealed)
from siltstone.hash_store.search cimport (
    KEY_ABSENT, KEY_PRESENT, Held, Store, is_tombstone, page_at, page_of)
from siltstone.hash_store.view cimport HashStoreView
from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport ENTRY_MAX, TYPE_DELETE

cdef struct Source:
    Store *store
    uint64_t first          # entries with a smaller hash do not count
    uint64_t entries        # that do
    uint64_t tombstones     # among them

# In one hash store.
cdef struct Cursor:
    Source *parts
    uint32_t count
    uint32_t part           # that is being read
    Store *store            # its
    uint32_t page           # that is being read
    uint32_t used           # bytes of entries in it
    uint32_t at             # of the entry that is next
    uint64_t hashed         # of its key
    uint64_t seen           # entries of the part that were next, this one too
    uint64_t tombstones     # of the part that were behind it
    bint over
    bint miscounted
    uint8_t copy[4096]      # of the page: what was verified is what is read
    uint8_t last[256]       # entry before the first one of the page

cdef struct Work:
    Cursor *cursors
    uint32_t count
    uint8_t *out
    Py_ssize_t room
    Py_ssize_t size         # of what was written
    uint64_t entries        # that may still be written,
    uint64_t entry_bytes    # and their bytes, before the next hash
    uint64_t hashed         # of what was read last
    bint drop_deletes
    Older *below            # older stores that stay, or NULL
    const uint8_t *overruled    # entries whose keys' entries here do not count, in order
    Py_ssize_t overruled_size   # bytes of them
    Py_ssize_t overruled_at     # the first one that is not behind what is read
    uint64_t overruled_hash     # its
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


ctypedef enum Step:
    DAMAGED = 0
    NEXT = 1
    AT_END = 2


cdef Step advance(Cursor *cursor) noexcept nogil:
    """Go on to the next entry of the part; DAMAGED where it is no entry that may stand there."""
    cdef const uint8_t *before = cursor.copy + cursor.at
    cdef uint64_t hashed
    cursor.at += before[0]
    if cursor.at == cursor.used:
        memcpy(cursor.last, before, before[0])
        before = cursor.last
        cursor.page += 1
        if cursor.page == cursor.store.pages:
            return AT_END
        if not open_page(cursor):
            return DAMAGED
    if not hash_of(cursor.store, cursor.copy + cursor.at, &hashed):
        return DAMAGED
    if cursor.at == 0 and hashed != cursor.store.fences[cursor.page]:
        return DAMAGED
    if hashed < cursor.hashed or (hashed == cursor.hashed and compare_keys(
            &cursor.store.keys, before, cursor.copy + cursor.at) >= 0):
        return DAMAGED
    cursor.hashed = hashed
    return NEXT


cdef bint enter(Cursor *cursor) noexcept nogil:
    """Go to the first entry of a part that counts; False where none may stand there."""
    cdef Source *part = &cursor.parts[cursor.part]
    cdef int64_t page = page_of(part.store, part.first)
    cursor.store = part.store
    # Entries of one hash may begin in the page before.
    while page > 0 and part.store.fences[page] == part.first:
        page -= 1
    cursor.page = <uint32_t>page if page > 0 else 0
    if not (open_page(cursor) and hash_of(cursor.store, cursor.copy, &cursor.hashed)
            and cursor.hashed == cursor.store.fences[cursor.page]):
        return False
    while cursor.hashed < part.first:
        if advance(cursor) != NEXT:
            return False
    cursor.seen, cursor.tombstones = 1, 0
    return True


cdef bint step(Cursor *cursor) noexcept nogil:
    """Go on to the next entry; False where it is no entry that may stand there."""
    cdef uint64_t hashed = cursor.hashed
    cdef Step found
    cursor.tombstones += is_tombstone(cursor.copy + cursor.at)
    found = advance(cursor)
    if found != AT_END:
        cursor.seen += 1
        return found == NEXT
    cursor.miscounted = (cursor.seen != cursor.parts[cursor.part].entries
                         or cursor.tombstones != cursor.parts[cursor.part].tombstones)
    if cursor.miscounted:
        return False
    cursor.part += 1
    cursor.over = cursor.part == cursor.count
    return cursor.over or (enter(cursor) and cursor.hashed > hashed)


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


cdef bint is_overruled(Work *work, uint64_t hashed, const uint8_t *entry) noexcept nogil:
    """Whether what counts of a key is elsewhere; entries are asked for in their order."""
    cdef Store *store = work.cursors[work.where].store
    cdef Py_ssize_t at = work.overruled_at
    cdef uint64_t other = work.overruled_hash
    while at < work.overruled_size and (other < hashed or (
            other == hashed and compare_keys(&store.keys, work.overruled + at, entry) < 0)):
        at += work.overruled[at]
        if at < work.overruled_size and not hash_of(store, work.overruled + at, &other):
            other = 0
    work.overruled_at, work.overruled_hash = at, other
    return (at < work.overruled_size and other == hashed
            and compare_keys(&store.keys, work.overruled + at, entry) == 0)


cdef void begin_guarded(void *argument) noexcept nogil:
    cdef Work *work = <Work *>argument
    for work.where in range(work.count):
        work.cursors[work.where].over = work.cursors[work.where].count == 0
        if not work.cursors[work.where].over and not enter(&work.cursors[work.where]):
            work.damaged = True
            return


cdef void merge_guarded(void *argument) noexcept nogil:
    """Write entries until `out` may not hold the next one, or as many as may be written, or all."""
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
        if (work.entries == 0 or work.entry_bytes < entry[0]) and newest.hashed != work.hashed:
            return
        work.hashed = newest.hashed
        memcpy(wanted, entry, entry[0])
        # Each tombstone that is kept stands for one put below: who counts keys goes by that.
        if not is_overruled(work, newest.hashed, wanted) and (wanted[1] != TYPE_DELETE or not (
                work.drop_deletes or (not alone and not is_needed(work, wanted, newest.hashed)))):
            memcpy(work.out + work.size, wanted, wanted[0])
            work.size += wanted[0]
            work.entries -= work.entries > 0
            work.entry_bytes -= wanted[0] if wanted[0] < work.entry_bytes else work.entry_bytes
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


cdef struct Hidden:
    Source part             # from `first` on
    uint64_t until          # hash
    uint64_t entries        # before that
    uint64_t tombstones
    bint damaged


cdef void count_hidden(void *argument) noexcept nogil:
    cdef Hidden *hidden = <Hidden *>argument
    cdef Cursor cursor
    cdef Step found = NEXT
    cursor.parts, cursor.count, cursor.part = &hidden.part, 1, 0
    hidden.damaged = not enter(&cursor)
    while not hidden.damaged and found == NEXT and cursor.hashed < hidden.until:
        hidden.entries += 1
        hidden.tombstones += is_tombstone(cursor.copy + cursor.at)
        found = advance(&cursor)
        hidden.damaged = found == DAMAGED


class Left(NamedTuple):
    """What of a hash store was not merged yet: of part number `part` so many entries and tombstones from
    :attr:`Merging.place` on, and all parts behind."""

    part: int
    entries: int
    tombstones: int


cdef class Merging:
    """The newest entry of each key of some hash stores, in ascending order, in one slice after the other.

    A cursor in each store takes 4.5 KiB; each page is verified as it is read. A record takes time in proportion to
    the number of stores. DamageError where a page is damaged, MediumError where one cannot be read: what was yielded
    before is right.

    :param stores: the newest first; of each its parts, in the order of their hashes, as (view, first, entries,
        tombstones): see :class:`siltstone.hash_store.older.Listed`. Views with the same types and secret; kept
    :param drop_deletes: leave tombstones out, where nothing older than these stores is kept anywhere
    :param below: the older stores that stay: a tombstone that hid a put in `stores` goes unless it hides one there, so
        that each that is kept stands for one put below it. Without them all are kept
    :param overruled: packed entries as :func:`siltstone.hash_store.sorting.sort_entries` returns them, whose keys have
        newer entries elsewhere: those here are left out. Kept, nobody may change it
    """

    cdef list stores
    cdef OlderStores below
    cdef const uint8_t[::1] overruled
    cdef Cursor *cursors
    cdef Source *sources
    cdef Work work

    def __cinit__(self):
        self.cursors = NULL
        self.sources = NULL

    def __init__(self, stores, *, bint drop_deletes=False, OlderStores below=None,
                 const uint8_t[::1] overruled=None):
        cdef HashStoreView view
        cdef HashStoreView first = None
        cdef Source *source
        self.stores = [list(parts) for parts in stores]
        if not self.stores:
            raise ValueError("no hash stores to merge")
        if self.cursors != NULL:
            raise RuntimeError("a merge begins once")
        self.cursors = <Cursor *>calloc(len(self.stores), sizeof(Cursor))
        self.sources = <Source *>calloc(sum([len(parts) for parts in self.stores]) + 1, sizeof(Source))
        if self.cursors == NULL or self.sources == NULL:
            raise MemoryError(f"no memory to merge {len(self.stores)} hash stores")
        source = self.sources
        for i, parts in enumerate(self.stores):
            self.cursors[i].parts, self.cursors[i].count = source, <uint32_t>len(parts)
            for view, least, entries, tombstones in parts:
                first = view if first is None else first
                if view.types is not first.types or (view.store.keys.k0, view.store.keys.k1) != (
                        first.store.keys.k0, first.store.keys.k1):
                    raise ValueError("hash stores with other types of keys or another secret")
                if view.header.record_pages == 0:
                    raise ValueError("a part of a hash store without entries")
                source.store, source.first, source.entries, source.tombstones = &view.store, least, entries, tombstones
                source += 1
        self.work.cursors, self.work.count = self.cursors, <uint32_t>len(self.stores)
        self.work.drop_deletes = drop_deletes
        self.below = below
        self.work.below = NULL if below is None else &below.older
        if overruled is not None and overruled.shape[0] and first is not None:
            self.overruled = overruled
            self.work.overruled, self.work.overruled_size = &overruled[0], overruled.shape[0]
            if not hash_of(&first.store, self.work.overruled, &self.work.overruled_hash):
                raise ValueError("overruled by an entry without a key")
        self.run(begin_guarded)

    def __dealloc__(self):
        free(self.cursors)
        free(self.sources)

    cdef int run(self, void (*part)(void *) noexcept nogil) except -1:
        cdef int failed
        cdef Cursor *cursor
        cdef HashStoreView view
        with nogil:
            failed = guarded(part, &self.work)
        if not failed and not self.work.damaged:
            return 0
        cursor = &self.cursors[self.work.where]
        view = self.stores[self.work.where][min(cursor.part, cursor.count - 1)][0]
        if failed:
            raise unreadable(f"merging hash store {view.extent}")
        if cursor.miscounted:
            part_ = &cursor.parts[cursor.part]
            raise view.damage(0, f"it has {cursor.seen} entries with {cursor.tombstones} tombstones, not"
                                 f" {part_.entries} with {part_.tombstones}, as is said of it elsewhere")
        raise view.damage(cursor.page + FIRST_RECORD_PAGE, "damaged; it was durable")

    def slice(self, uint64_t entries, uint64_t entry_bytes, *, Py_ssize_t chunk_bytes=1 << 20):
        """Yield the next entries in chunks of packed ones, at most so many of so many bytes, but for further ones of the
        last hash; nothing where that is the end.

        Each chunk is an array (n,) of uint8, n at most `chunk_bytes`, and the caller's own.
        """
        if chunk_bytes < ENTRY_MAX:
            raise ValueError(f"chunks of {chunk_bytes} bytes: an entry may have {ENTRY_MAX}")
        self.work.entries, self.work.entry_bytes = entries, entry_bytes
        while True:
            chunk = np.empty(chunk_bytes, np.uint8)
            size = self.fill(chunk)
            if not size:
                return
            yield chunk[:size]

    cdef Py_ssize_t fill(self, uint8_t[::1] out) except -1:
        self.work.out, self.work.room, self.work.size = &out[0], out.shape[0], 0
        self.run(merge_guarded)
        return self.work.size

    @property
    def place(self):
        """The hash from which on nothing was merged yet; None where all is."""
        hashes = [self.cursors[i].hashed for i in range(self.work.count) if not self.cursors[i].over]
        return min(hashes) if hashes else None

    def left(self):
        """What of each of the hash stores was not merged yet, in their order."""
        cdef Hidden hidden
        cdef Cursor *cursor
        cdef Source *part
        cdef int failed
        place, found = self.place, []
        for i in range(self.work.count):
            cursor = &self.cursors[i]
            if cursor.over:
                found.append(Left(cursor.count, 0, 0))
                continue
            part = &cursor.parts[cursor.part]
            hidden.part, hidden.until = part[0], part.first
            hidden.entries = hidden.tombstones = hidden.damaged = 0
            if place < part.first:
                # Tombstones that an earlier merge left out may lie there: they delete nothing, but they are there.
                hidden.part.first = place
                with nogil:
                    failed = guarded(count_hidden, &hidden)
                if failed or hidden.damaged:
                    raise (<HashStoreView>self.stores[i][cursor.part][0]).damage(0, "damaged; it was durable")
            found.append(Left(cursor.part, hidden.entries + part.entries - cursor.seen + 1,
                              hidden.tombstones + part.tombstones - cursor.tombstones))
        return found
