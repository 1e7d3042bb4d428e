"""Writes a hash store: entries that come in ascending order become pages, then filter, fences and header."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from siltstone.errors import EntryError, StateError
from siltstone.hash_store.extent import CLUSTERS_MAX, HEADER_SIZE, RECORDS_MAX, FilterShape, HashStoreHeader

from siltstone.format.kernels cimport SealKey, bad_entry, is_entry, posix_memalign, store_be16, store_be32, store_be64
from siltstone.hash_store.filter cimport FILTER_BUILT, FILTER_NO_MEMORY, Filter, build_filter
from siltstone.hash_store.page cimport (
    COUNT_AT, FENCE_PART, FILTER_PART, GENERATION_AT, HEADER_PART, INDEX_AT, LAST_TAG, PAGE, PART_AT, RECORD_PART,
    ROOM, SIZE_AT, USED_AT, compare_keys, tag_of)
from siltstone.index.layout cimport TYPE_DELETE, Table, key_hash, sip_load
from siltstone.index.types cimport KeyTypes, keyed

cdef enum:
    RUN = 256               # pages written at once: 1 MiB

ctypedef enum Stop:
    ALL_TAKEN = 0
    RUN_FULL = 1
    NO_ENTRY = 2
    KEYLESS = 3
    UNORDERED = 4
    TWICE = 5
    TOO_MANY = 6


cdef class HashStoreBuilder:
    """Builds one hash store in an extent, once, from packed entries in ascending order of (hash, type, key).

    Nothing is durable before the caller flushes the medium behind :meth:`finish`. An extent in which a build came to
    no end gets a new generation before the next one: pages of both would pass for this life's.

    Memory: 8 bytes a record for hashes, 8 a page for fences, and 1 MiB; while the filter is built besides 12 bytes a
    record and 14 a cell of it (1.08 to 1.13 a record), 36 bytes a record in all.

    :param key: of the extent's life
    :param generation: its number; the low 32 bits go into each seal, for people who look
    :param types: where keys lie in entries
    :param secret: of the hashes of keys [16 bytes]
    :param write: is called with a byte offset in the extent and whole pages, up to 1 MiB in page-aligned memory that
        is valid during the call only; each page is written once, from the second on in order, the first one last
    :param entries_max: how many may come; memory is taken for them
    :param clusters: of the extent; see `plan` for how many are enough
    """

    cdef SealKey key
    cdef KeyTypes types
    cdef Table keys
    cdef object write
    cdef uint32_t generation
    cdef uint64_t clusters
    cdef uint64_t entries_max
    cdef readonly uint64_t entries
    cdef readonly uint64_t tombstones
    cdef readonly uint64_t entry_bytes
    cdef uint32_t largest
    cdef uint64_t *hashes
    cdef uint64_t *fences
    cdef uint32_t pages             # that have been begun
    cdef uint8_t *run               # pages that are written together
    cdef uint32_t run_first         # cluster of the first of them
    cdef uint32_t filled            # how many are sealed
    cdef uint32_t used              # of the page behind them, which takes entries
    cdef uint32_t count
    cdef uint32_t size              # of all its entries, 0 where they have several
    cdef uint8_t last[256]          # the last entry that was taken
    cdef bint over                  # finished, or failed

    def __cinit__(self):
        self.hashes = self.fences = NULL
        self.run = NULL

    def __init__(self, SealKey key not None, uint64_t generation, KeyTypes types not None,
                 const uint8_t[::1] secret not None, write, *, entries_max, clusters):
        cdef void *run = NULL
        if secret.shape[0] != 16:
            raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
        if not 0 <= entries_max <= RECORDS_MAX or not 2 <= clusters <= CLUSTERS_MAX:
            raise ValueError(f"{entries_max} entries in {clusters} clusters")
        if self.run != NULL:
            raise RuntimeError("a builder builds once")
        self.key, self.types, self.write = key, types, write
        self.generation, self.clusters, self.entries_max = <uint32_t>generation, clusters, entries_max
        self.keys.key_offset, self.keys.key_size, self.keys.known = types.offset, types.size, types.known
        self.keys.k0, self.keys.k1 = sip_load(&secret[0]), sip_load(&secret[8])
        self.run_first = 1
        self.hashes = <uint64_t *>malloc(8 * self.entries_max + 8)
        self.fences = <uint64_t *>malloc(8 * self.clusters)
        if self.hashes == NULL or self.fences == NULL or posix_memalign(&run, PAGE, RUN * PAGE):
            raise MemoryError(f"no memory to build a hash store of {entries_max} entries")
        self.run = <uint8_t *>run
        self.begin_page()

    def __dealloc__(self):
        free(self.hashes)
        free(self.fences)
        free(self.run)

    def add(self, const uint8_t[::1] stream not None):
        """Take packed whole entries that come behind all before them, writing each run of pages that is full.

        EntryError, naming the offset in the stream, for what is no entry, has no key, is out of order or was there
        already; StateError where there are more than was planned. An error ends the build.
        """
        cdef Py_ssize_t at = 0
        cdef Stop stop = RUN_FULL
        if self.over:
            raise StateError("this hash store is finished, or its build failed", what="hash store", state="over")
        if stream.shape[0] == 0:
            return
        self.over = True
        while stop == RUN_FULL:
            with nogil:
                stop = self.take(&stream[0], stream.shape[0], &at)
            if stop == RUN_FULL:
                self.write_run()
        if stop != ALL_TAKEN:
            raise self.refusal(stop, stream, at)
        self.over = False

    def finish(self):
        """Write what is left, then filter, fences and last the header page; the header that it wrote.

        StateError where no filter is found, which means that the hashes are not random; no chance comes to that.
        """
        cdef Filter filter
        cdef uint8_t *cells
        cdef uint64_t hashes = 0, size
        cdef uint32_t i
        cdef int result
        if self.over:
            raise StateError("this hash store is finished, or its build failed", what="hash store", state="over")
        self.over = True
        if self.count:
            self.close_page()
        with nogil:
            hashes = self.drop_equal_hashes()
        shape = FilterShape.of(hashes)
        size = shape.cells
        filter.segment = <uint32_t>1 << <int>shape.segment_bits
        filter.starts = <uint64_t>shape.segments * filter.segment
        header = HashStoreHeader(self.entries, self.tombstones, self.entry_bytes, self.largest, self.pages, hashes,
                                 0, shape)
        if header.clusters > self.clusters:
            raise self.refusal(TOO_MANY, None, 0)
        cells = <uint8_t *>calloc(size, 1)
        if cells == NULL:
            raise MemoryError(f"no memory for a filter of {size} bytes")
        try:
            with nogil:
                result = build_filter(&filter, cells, self.hashes, hashes)
            if result == FILTER_NO_MEMORY:
                raise MemoryError(f"no memory to build a filter of {hashes} hashes")
            if result != FILTER_BUILT:
                raise StateError(f"no filter was found for {hashes} hashes", what="filter", state="not found")
            self.put_part(FILTER_PART, cells, size)
        finally:
            free(cells)
        for i in range(self.pages):
            store_be64(<uint8_t *>&self.fences[i], self.fences[i])
        self.put_part(FENCE_PART, <uint8_t *>self.fences, 8 * <uint64_t>self.pages)
        self.write_run()
        header = HashStoreHeader(self.entries, self.tombstones, self.entry_bytes, self.largest, self.pages, hashes,
                                 filter.seed, shape)
        self.put_header(header.to_bytes())
        free(self.hashes)
        self.hashes = NULL
        return header

    cdef Stop take(self, const uint8_t *stream, Py_ssize_t size, Py_ssize_t *where) noexcept nogil:
        """Lay entries into pages from byte `where` on, until they end or `where` is what stopped it."""
        cdef const uint8_t *entry
        cdef const uint8_t *key
        cdef uint8_t *page = self.run + <uint64_t>self.filled * PAGE
        cdef int kind, key_size, order
        cdef uint32_t length
        cdef uint64_t hashed, last = self.hashes[self.entries - 1] if self.entries else 0
        while where[0] < size:
            if not is_entry(stream, where[0], size):
                return NO_ENTRY
            entry = stream + where[0]
            length = entry[0]
            if not keyed(&self.keys, entry, &kind, &key, &key_size):
                return KEYLESS
            hashed = key_hash(self.keys.k0, self.keys.k1, kind, key, key_size)
            if self.entries and hashed <= last:
                order = -1 if hashed < last else compare_keys(&self.keys, entry, self.last)
                if order <= 0:
                    return TWICE if order == 0 else UNORDERED
            if self.entries == self.entries_max:
                return TOO_MANY
            if self.used + self.count + length + 1 > ROOM:
                self.close_page()
                if self.filled == RUN:
                    return RUN_FULL
                page = self.run + <uint64_t>self.filled * PAGE
            if self.count == 0:
                # Header, filter and fences take at least a page each.
                if self.pages + 4 > self.clusters:
                    return TOO_MANY
                self.fences[self.pages] = hashed
                self.pages += 1
                self.size = length
            elif length != self.size:
                self.size = 0
            memcpy(page + self.used, entry, length)
            page[LAST_TAG - self.count] = tag_of(hashed)
            self.used += length
            self.count += 1
            memcpy(self.last, entry, length)
            self.hashes[self.entries] = last = hashed
            self.entries += 1
            self.entry_bytes += length
            self.tombstones += entry[1] == TYPE_DELETE
            if length > self.largest:
                self.largest = length
            where[0] += length
        return ALL_TAKEN

    cdef uint64_t drop_equal_hashes(self) noexcept nogil:
        """Leave each hash once; how many are left."""
        cdef uint64_t i, kept = 0
        for i in range(self.entries):
            if i == 0 or self.hashes[i] != self.hashes[kept - 1]:
                self.hashes[kept] = self.hashes[i]
                kept += 1
        return kept

    cdef void begin_page(self) noexcept nogil:
        """Clear the page behind those that are sealed, if the run has room for one."""
        self.used = self.count = self.size = 0
        if self.filled < RUN:
            memset(self.run + <uint64_t>self.filled * PAGE, 0xFF, PAGE)

    cdef void close_page(self) noexcept nogil:
        self.seal(self.run + <uint64_t>self.filled * PAGE, self.run_first + self.filled, RECORD_PART)
        self.filled += 1
        self.begin_page()

    cdef void seal(self, uint8_t *page, uint32_t index, uint32_t part) noexcept nogil:
        store_be32(page + GENERATION_AT, self.generation)
        store_be32(page + INDEX_AT, index)
        store_be16(page + USED_AT, <uint16_t>self.used)
        store_be16(page + COUNT_AT, <uint16_t>self.count)
        store_be32(page + PART_AT, part)
        store_be16(page + SIZE_AT, <uint16_t>self.size)
        memset(page + SIZE_AT + 2, 0, 6)
        self.key.seal(page)

    cdef int put_part(self, uint32_t part, const uint8_t *data, uint64_t size) except -1:
        """Lay data that is no entries into pages, writing each run that is full."""
        cdef uint64_t at = 0
        while at < size:
            if self.filled == RUN:
                self.write_run()
            self.used = <uint32_t>(size - at) if size - at < ROOM else ROOM
            memcpy(self.run + <uint64_t>self.filled * PAGE, data + at, self.used)
            at += self.used
            self.seal(self.run + <uint64_t>self.filled * PAGE, self.run_first + self.filled, part)
            self.filled += 1
            self.begin_page()
        return 0

    cdef int put_header(self, const uint8_t[::1] header) except -1:
        # What later versions may put behind it is zero until then.
        memset(self.run, 0, PAGE)
        memcpy(self.run, &header[0], header.shape[0])
        self.used = <uint32_t>header.shape[0]
        self.seal(self.run, 0, HEADER_PART)
        self.write(0, <uint8_t[:PAGE]>self.run)
        return 0

    cdef int write_run(self) except -1:
        cdef Py_ssize_t size = <Py_ssize_t>self.filled * PAGE
        if self.filled:
            self.write(<uint64_t>self.run_first * PAGE, <uint8_t[:size]>self.run)
        self.run_first += self.filled
        self.filled = 0
        self.begin_page()
        return 0

    cdef object refusal(self, Stop stop, const uint8_t[::1] stream, Py_ssize_t at):
        """The error for what stopped `take`."""
        if stop == TOO_MANY:
            return StateError(
                f"more than {self.entries_max} entries, or more than {self.clusters} clusters hold",
                what="hash store", state="full")
        if stop == NO_ENTRY:
            return bad_entry(stream, at)
        why = {
            KEYLESS: "has no key",
            UNORDERED: "comes before the one that was taken last",
            TWICE: "has the key of the one that was taken last",
        }[stop]
        kind, size = stream[at + 1], stream[at]
        return EntryError(f"the entry at offset {at}, of type {kind:#04x}, {why}", offset=at, type=kind, size=size)
