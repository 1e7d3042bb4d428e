"""One process's sight of one hash store: checks it as far as needed, finds keys in it without the interpreter lock."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from typing import NamedTuple

import numpy as np

from siltstone.errors import DamageError
from siltstone.hash_store.extent import HEADER_SIZE, HashStoreHeader

from siltstone.format.kernels cimport SealKey, load_be16, load_be64
from siltstone.hash_store.filter cimport Cells, expect_cells, may_hold
from siltstone.hash_store.order cimport hash_of, in_order
from siltstone.hash_store.page cimport (
    COUNT_AT, FENCES, FENCE_PART, FILTER_PART, FIRST_RECORD_PAGE, HEADER_PART, PAGE, RECORD_PART, ROOM, USED_AT, holds_records,
    is_sealed)
from siltstone.hash_store.search cimport (
    KEY_ABSENT, PAGE_DAMAGED, KEY_PRESENT, Held, Store, expect_entry, expect_page, find, is_tombstone)
from siltstone.index.guard cimport guarded, install, unreadable
from siltstone.index.layout cimport CHUNK, ENTRY_MAX, key_hash, sip_load
from siltstone.index.types cimport KeyTypes, check_key

NOT_FOUND = 0
FOUND = 1
DELETED = 2


cdef struct Query:
    Store *store
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    Py_ssize_t done         # keys that were answered
    uint8_t *flags
    uint8_t *rows
    Py_ssize_t row_size
    uint32_t damaged        # cluster that ended it, or 0: the header page is not searched


cdef inline void fill(Query *query, Py_ssize_t i, Held held, const uint8_t *entry) noexcept nogil:
    cdef uint8_t *row = query.rows + i * query.row_size
    cdef Py_ssize_t size = 0
    query.flags[i] = 0
    if held == KEY_PRESENT:
        query.flags[i] = 2 if is_tombstone(entry) else 1
        size = entry[0] if entry[0] < query.row_size else query.row_size
        memcpy(row, entry, size)
    memset(row + size, 0, query.row_size - size)


cdef bint find_chunk(Query *query) noexcept nogil:
    """Look up at most CHUNK keys; False where a page is damaged."""
    cdef uint64_t hashes[CHUNK]
    cdef Cells cells[CHUNK]
    cdef int64_t pages[CHUNK]
    cdef uint8_t entry[256]
    cdef Store *store = query.store
    cdef Held held
    cdef Py_ssize_t i
    cdef int size = query.key_size
    for i in range(query.count):
        hashes[i] = key_hash(store.keys.k0, store.keys.k1, query.kind, query.keys + i * size, size)
        expect_cells(&store.filter, hashes[i], &cells[i])
    for i in range(query.count):
        pages[i] = expect_page(store, hashes[i]) if may_hold(&store.filter, &cells[i]) else -1
    for i in range(query.count):
        if pages[i] >= 0:
            expect_entry(store, pages[i], hashes[i])
    for i in range(query.count):
        held = KEY_ABSENT
        if pages[i] >= 0:
            held = find(store, pages[i], hashes[i], query.kind, query.keys + i * size, size, entry, &query.damaged)
            if held == PAGE_DAMAGED:
                return False
        fill(query, i, held, entry)
    return True


cdef void find_guarded(void *argument) noexcept nogil:
    cdef Query *query = <Query *>argument
    cdef Query part = query[0]
    while query.done < query.count:
        part.count = query.count - query.done if query.count - query.done < CHUNK else CHUNK
        part.keys = query.keys + query.done * query.key_size
        part.flags = query.flags + query.done
        part.rows = query.rows + query.done * query.row_size
        if not find_chunk(&part):
            query.damaged = part.damaged
            return
        query.done += part.count


class Counts(NamedTuple):
    """Entries in some pages, tombstones among them, and both again of those that count in the part of a hash store."""

    entries: int
    tombstones: int
    part_entries: int
    part_tombstones: int


cdef void count_entries(Store *store, const uint8_t *page, uint64_t least, uint64_t *counts) noexcept nogil:
    """Add what is in a verified page to :class:`Counts`."""
    cdef uint32_t at = 0, i
    cdef uint64_t hashed
    cdef bint deleted, inside = False
    for i in range(load_be16(page + COUNT_AT)):
        deleted = is_tombstone(page + at)
        # They ascend: behind one that is inside all are.
        inside = inside or (hash_of(store, page + at, &hashed) and hashed >= least)
        counts[0] += 1
        counts[1] += deleted
        counts[2] += inside
        counts[3] += inside and deleted
        at += page[at]


cdef struct Copy:
    const uint8_t *source
    uint8_t *into


cdef void copy_guarded(void *argument) noexcept nogil:
    cdef Copy *copy = <Copy *>argument
    memcpy(copy.into, copy.source, PAGE)


cdef class HashStoreView:
    """What one process sees of one hash store, or of a part of one. Any number of threads may search it at once.

    Opening verifies the header, filter and fence pages and copies filter and fences to private memory; a record
    page is verified by the first search that comes to it. DamageError, naming cluster and offset, where a page is
    not what was written; VersionError for a format that this release cannot read; MediumError where a mapped page
    cannot be read.

    :param data: the extent from its first byte on, as a map or in memory; kept while the view lives. May be longer
        than the hash store. No byte of it is believed, nor that it stays as it is
    :param key: of the extent's life, as the builder had it
    :param types: where keys lie in entries
    :param secret: of their hashes [16 bytes], as the builder had it
    :param extent: its id, for errors
    :param offset: of the extent in the volume [bytes], for errors
    :param expect: told which bytes of `data` are going to be read one after another, (first, number of them)
    """

    def __cinit__(self):
        self.private = NULL

    def __init__(self, const uint8_t[::1] data not None, SealKey key not None, KeyTypes types not None,
                 const uint8_t[::1] secret not None, *, extent=0, offset=0, expect=None):
        cdef uint8_t page[4096]
        if secret.shape[0] != 16:
            raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
        if self.private != NULL:
            raise RuntimeError("a view is opened once")
        install()
        self.data, self.key, self.types, self.extent, self.offset = data, key, types, extent, offset
        if data.shape[0] < PAGE:
            raise self.damage(0, f"an extent of {data.shape[0]} bytes")
        memset(&self.store, 0, sizeof(self.store))
        self.store.base = &data[0]
        self.store.secret = key.secret
        self.store.keys.key_offset = types.offset
        self.store.keys.key_size = types.size
        self.store.keys.known = types.known
        self.store.keys.k0 = sip_load(&secret[0])
        self.store.keys.k1 = sip_load(&secret[8])
        self.read_page(0, HEADER_PART, page)
        try:
            self.header = HashStoreHeader.parse(
                PyBytes_FromStringAndSize(<const char *>page, HEADER_SIZE), data.shape[0] // PAGE)
        except ValueError as error:
            raise self.damage(0, str(error)) from error
        if expect is not None:
            expect(self.header.first_filter_page * PAGE, (self.header.fence_pages + self.header.filter_pages) * PAGE)
        self.take_private()
        self.check_fences()

    def __dealloc__(self):
        free(self.private)

    def over(self, const uint8_t[::1] data not None):
        """This view, but with another map of the same extent, such as one that is read in order; no page is read."""
        cdef HashStoreView other = HashStoreView.__new__(HashStoreView)
        if data.shape[0] != self.data.shape[0]:
            raise ValueError(f"a map of {data.shape[0]} bytes, not {self.data.shape[0]}")
        other.opened, other.store, other.data, other.key, other.types = self, self.store, data, self.key, self.types
        other.header, other.extent, other.offset = self.header, self.extent, self.offset
        other.store.base = &data[0]
        return other

    cdef int take_private(self) except -1:
        """Copy fences and filter to private memory, with room for a bit of each record page before the filter."""
        cdef uint32_t pages = self.header.record_pages, i
        cdef Py_ssize_t cells = self.header.filter_shape.cells
        cdef Py_ssize_t bits = (pages + 63) // 64 * 8
        cdef uint64_t *fences
        self.memory_bytes = 8 * <Py_ssize_t>pages + bits + cells
        self.private = <uint8_t *>calloc(self.memory_bytes, 1)
        if self.private == NULL:
            raise MemoryError(f"{self.memory_bytes} bytes for the filter and fences of a hash store")
        fences = <uint64_t *>self.private
        self.store.fences = fences
        self.store.verified = fences + pages
        self.store.filter.cells = self.private + 8 * <Py_ssize_t>pages + bits
        self.store.filter.seed = self.header.filter_seed
        self.store.filter.segment = <uint32_t>1 << <int>self.header.filter_shape.segment_bits
        self.store.filter.starts = <uint64_t>self.header.filter_shape.segments * self.store.filter.segment
        self.read_part(FENCE_PART, self.header.first_fence_page, self.header.fence_pages, self.private,
                       8 * <Py_ssize_t>pages)
        for i in range(pages):
            fences[i] = load_be64(self.private + 8 * <Py_ssize_t>i)
        self.read_part(FILTER_PART, self.header.first_filter_page, self.header.filter_pages,
                       self.private + 8 * <Py_ssize_t>pages + bits, cells)
        self.store.pages = pages
        return 0

    cdef int read_part(self, uint32_t part, uint32_t first, uint32_t count, uint8_t *into, Py_ssize_t size) except -1:
        """Copy `size` bytes that lie in `count` verified pages."""
        cdef uint8_t page[4096]
        cdef Py_ssize_t here
        cdef uint32_t i
        for i in range(count):
            self.read_page(first + i, part, page)
            here = size - <Py_ssize_t>i * ROOM if size - <Py_ssize_t>i * ROOM < ROOM else ROOM
            if load_be16(page + USED_AT) != here:
                raise self.damage(first + i, f"{load_be16(page + USED_AT)} bytes in use, not {here}")
            memcpy(into + <Py_ssize_t>i * ROOM, page, here)
        return 0

    cdef int read_page(self, uint32_t cluster, uint32_t part, uint8_t *page) except -1:
        """Copy a cluster of the extent to private memory and verify the copy."""
        cdef Copy copy
        cdef bint right = False
        cdef int failed
        copy.source, copy.into = self.store.base + <uint64_t>cluster * PAGE, page
        with nogil:
            failed = guarded(copy_guarded, &copy)
            if not failed:
                right = is_sealed(page, cluster, part, self.store.secret)
                if right and part == RECORD_PART:
                    right = holds_records(page) and in_order(&self.store, cluster - FIRST_RECORD_PAGE, page)
        if failed:
            raise unreadable(f"reading cluster {cluster} of hash store {self.extent}")
        if not right:
            raise self.damage(cluster, "damaged; it was durable")
        return 0

    cdef int check_fences(self) except -1:
        """See that fences ascend, and prepare to guess among them."""
        cdef uint64_t span
        cdef const uint64_t *fences = self.store.fences
        cdef uint32_t i
        for i in range(1, self.store.pages):
            if fences[i] < fences[i - 1]:
                raise self.damage(self.header.first_fence_page + i // FENCES, f"fence {i} is less than the one before")
        if self.store.pages > 1:
            span = fences[self.store.pages - 1] - fences[0]
            while span >> self.store.shift >> 32:
                self.store.shift += 1
            span >>= self.store.shift
            # What is guessed stays below `pages`: the distance of a hash is less than the span.
            self.store.scale = (<uint64_t>(self.store.pages - 1) << 32) // (span + 1)
        return 0

    cdef object damage(self, uint32_t cluster, str what):
        at = self.offset + cluster * PAGE
        return DamageError(
            f"hash store {self.extent}, cluster {cluster}, at byte {at} of the volume: {what}",
            journal=self.extent, cluster=cluster, offset=at)

    @property
    def records(self):
        """Entries in it, tombstones included."""
        return self.header.entries

    @property
    def tombstones(self):
        """Entries that say of a key that it is deleted."""
        return self.header.tombstones

    @property
    def last_fence(self):
        """The hash of the first entry of the last record page; None where there is none."""
        return self.store.fences[self.store.pages - 1] if self.store.pages else None

    @property
    def clusters(self):
        """Clusters of the extent that are in use."""
        return self.header.clusters

    def get(self, int kind, const uint8_t[::1] key not None):
        """The whole entry of a key [2-254 bytes], a tombstone too, or None where this store knows nothing of it."""
        cdef uint8_t entry[256]
        cdef uint8_t flag = 0
        check_key(self.types, kind, key.shape[0])
        self.search(kind, &key[0], <int>key.shape[0], 1, &flag, entry, 256)
        return PyBytes_FromStringAndSize(<const char *>entry, entry[0]) if flag else None

    def find_many(self, int kind, const uint8_t[:, ::1] keys not None, Py_ssize_t row_size=ENTRY_MAX):
        """Look up (n, key size) keys of one type.

        Returns (states, entries): (n,) uint8 of NOT_FOUND, FOUND or DELETED, and (n, row_size) uint8 with whole
        entries, zeros behind each; of a larger entry only the start.
        """
        cdef Py_ssize_t n = keys.shape[0]
        check_key(self.types, kind, keys.shape[1])
        if row_size < 1:
            raise ValueError(f"rows of {row_size} bytes")
        states = np.empty(n, np.uint8)
        entries = np.empty((n, row_size), np.uint8)
        cdef uint8_t[::1] flags = states
        cdef uint8_t[:, ::1] rows = entries
        if n:
            self.search(kind, &keys[0, 0], <int>keys.shape[1], n, &flags[0], &rows[0, 0], row_size)
        return states, entries

    def may_hold(self, int kind, const uint8_t[:, ::1] keys not None):
        """What the filter says of (n, key size) keys of one type: (n,) bool, False where one is surely not here."""
        cdef Py_ssize_t n = keys.shape[0], i
        cdef int size = <int>keys.shape[1]
        cdef Cells cells
        check_key(self.types, kind, size)
        answers = np.empty(n, np.uint8)
        cdef uint8_t[::1] flags = answers
        with nogil:
            for i in range(n):
                expect_cells(&self.store.filter,
                             key_hash(self.store.keys.k0, self.store.keys.k1, kind, &keys[i, 0], size), &cells)
                flags[i] = may_hold(&self.store.filter, &cells)
        return answers.view(bool)

    cdef int search(self, int kind, const uint8_t *keys, int key_size, Py_ssize_t count, uint8_t *flags, uint8_t *rows,
                    Py_ssize_t row_size) except -1:
        cdef Query query
        cdef int failed
        query.store, query.kind, query.keys, query.key_size = &self.store, kind, keys, key_size
        query.count, query.done, query.damaged = count, 0, 0
        query.flags, query.rows, query.row_size = flags, rows, row_size
        with nogil:
            failed = guarded(find_guarded, &query)
        if failed:
            raise unreadable(f"looking up keys in hash store {self.extent}")
        if query.done < count:
            raise self.damage(query.damaged, "damaged; it was durable")
        return 0

    def verify(self, uint32_t first=0, count=None, uint64_t least=0):
        """Read clusters of the extent and check all that a page can say; DamageError for the first that is damaged.

        Of record pages also the order of keys, tags and fences. Returns :class:`Counts` of the entries in these
        clusters, and of those whose key has a hash of `least` or more.

        :param count: how many; None for all that follow
        """
        cdef uint8_t page[4096]
        cdef uint64_t counts[4]
        cdef uint32_t cluster, end = self.header.clusters
        cdef uint32_t filter_page = self.header.first_filter_page, fence_page = self.header.first_fence_page
        counts[0] = counts[1] = counts[2] = counts[3] = 0
        if count is not None and first + count < end:
            end = first + count
        for cluster in range(first, end):
            if cluster == 0:
                self.read_page(cluster, HEADER_PART, page)
            elif cluster < filter_page:
                self.read_page(cluster, RECORD_PART, page)
                count_entries(&self.store, page, least, counts)
            else:
                self.read_page(cluster, FILTER_PART if cluster < fence_page else FENCE_PART, page)
        return Counts(counts[0], counts[1], counts[2], counts[3])

    def pages(self):
        """The packed entries of each record page [bytes], in order, verified as :meth:`verify` does."""
        for i in range(self.store.pages):
            yield self.page_entries(i)

    def page_entries(self, uint32_t number):
        """The packed entries of record page `number` [bytes], verified as :meth:`verify` does."""
        cdef uint8_t page[4096]
        if number >= self.store.pages:
            raise IndexError(f"record page {number} of {self.store.pages}")
        self.read_page(number + FIRST_RECORD_PAGE, RECORD_PART, page)
        return PyBytes_FromStringAndSize(<const char *>page, load_be16(page + USED_AT))
