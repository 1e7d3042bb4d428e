"""Lookups in the indexes of all shards, without a lock."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport (
    BUCKET, CHUNK, CLUSTER, ENTRY_MAX, FINGERPRINTS, OFFSET_BITS, OFFSETS, PLACE_BITS, PLACES, SLOT_CLUSTERS,
    TAIL_IN_LOG, Journal, Segment, Table, bucket, buckets_of, key_hash, load_acquire, load_relaxed, prefetch,
    segment_of, shard_of, unchanged)
from siltstone.index.search cimport PRESENT, lookup, same_key
from siltstone.index.table cimport LogIndex
from siltstone.index.types cimport KeyTypes, check_key


cdef struct Query:
    Table **tables
    uint32_t shards
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    uint8_t *flags
    uint8_t *rows
    int payload_size
    uint8_t *entry


cdef bint quick(Table *table, uint64_t hashed, uint64_t slot, int kind, const uint8_t *key, int size, uint8_t *out,
                int payload_size) noexcept nogil:
    """Whether the entry that a slot named a moment ago is the key's; its payload in `out` then."""
    cdef Journal *journal = &table.journals[(slot & PLACES) >> OFFSET_BITS]
    cdef const uint8_t *base = table.bases[(slot & PLACES) >> OFFSET_BITS]
    cdef uint64_t offset = slot & OFFSETS
    cdef uint64_t seen = load_acquire(&journal.sequence)
    cdef const uint8_t *at
    if base == NULL or seen & 1 or (
            journal.tail_kind != TAIL_IN_LOG and (offset >> 12) == <uint64_t>journal.tail_index + SLOT_CLUSTERS):
        return False
    at = base + offset
    if at[0] != payload_size + 2 or (offset & (CLUSTER - 1)) + at[0] > CLUSTER or not same_key(table, at, kind, key, size):
        return False
    memcpy(out, at + 2, payload_size)
    return unchanged(&journal.sequence, seen)


cdef void get_chunk(Query *query) noexcept nogil:
    """Look up at most CHUNK keys in three passes, so that each waits for memory once for all of them."""
    cdef uint64_t hashes[CHUNK]
    cdef uint64_t slots_found[CHUNK]
    cdef uint64_t sequences[CHUNK]
    cdef uint8_t entry[256]
    cdef Table *tables[CHUNK]
    cdef Table *table
    cdef Segment *segment
    cdef uint64_t *one
    cdef uint64_t *two
    cdef uint64_t *slots_one[CHUNK]
    cdef uint64_t *slots_two[CHUNK]
    cdef uint64_t number, first, second, slot, fingerprint, place
    cdef Py_ssize_t i
    cdef int lane
    cdef uint64_t k0 = query.tables[0].k0, k1 = query.tables[0].k1
    cdef int size = query.key_size
    for i in range(query.count):
        hashes[i] = key_hash(k0, k1, query.kind, query.keys + i * size, size)
        table = tables[i] = query.tables[shard_of(hashes[i], query.shards)]
        number = segment_of(table, hashes[i])
        segment = &table.segments[number]
        sequences[i] = load_acquire(&segment.sequence)
        buckets_of(hashes[i] & FINGERPRINTS, segment.buckets, &first, &second)
        slots_one[i] = bucket(table, number, segment.window & 1, first)
        slots_two[i] = bucket(table, number, segment.window & 1, second)
        prefetch(slots_one[i])
        prefetch(slots_two[i])
    for i in range(query.count):
        one, two = slots_one[i], slots_two[i]
        fingerprint = hashes[i] & FINGERPRINTS
        slots_found[i] = 0
        for lane in range(BUCKET):
            slot = load_relaxed(&one[lane])
            if slot >> PLACE_BITS == fingerprint and slot:
                slots_found[i] = slot
            slot = load_relaxed(&two[lane])
            if slot >> PLACE_BITS == fingerprint and slot:
                slots_found[i] = slot
        if slots_found[i]:
            place = slots_found[i] & PLACES
            if tables[i].bases[place >> OFFSET_BITS] != NULL:
                prefetch(tables[i].bases[place >> OFFSET_BITS] + (place & OFFSETS))
                prefetch(tables[i].bases[place >> OFFSET_BITS] + (place & OFFSETS) + 49)
    for i in range(query.count):
        table = tables[i]
        query.flags[i] = 0
        if slots_found[i] == 0:
            # Nothing bears the fingerprint, and no move or growth went on meanwhile: it is not there.
            if not sequences[i] & 1 and unchanged(&table.segments[segment_of(table, hashes[i])].sequence, sequences[i]):
                memset(query.rows + i * query.payload_size, 0, query.payload_size)
                continue
        elif quick(table, hashes[i], slots_found[i], query.kind, query.keys + i * size, size,
                   query.rows + i * query.payload_size, query.payload_size):
            query.flags[i] = 1
            continue
        if (lookup(table, hashes[i], query.kind, query.keys + i * size, size, entry) == PRESENT
                and entry[0] - 2 == query.payload_size):
            memcpy(query.rows + i * query.payload_size, entry + 2, query.payload_size)
            query.flags[i] = 1
        else:
            memset(query.rows + i * query.payload_size, 0, query.payload_size)


cdef void get_guarded(void *argument) noexcept nogil:
    cdef Query *query = <Query *>argument
    cdef Table *table = query.tables[0]
    cdef uint64_t hashed = key_hash(table.k0, table.k1, query.kind, query.keys, query.key_size)
    table = query.tables[shard_of(hashed, query.shards)]
    query.count = lookup(table, hashed, query.kind, query.keys, query.key_size, query.entry) == PRESENT


cdef void get_many_guarded(void *argument) noexcept nogil:
    cdef Query *query = <Query *>argument
    cdef Query part = query[0]
    cdef Py_ssize_t start = 0
    while start < query.count:
        part.count = query.count - start if query.count - start < CHUNK else CHUNK
        part.keys = query.keys + start * query.key_size
        part.flags = query.flags + start
        part.rows = query.rows + start * query.payload_size
        get_chunk(&part)
        start += part.count


cdef class Reader:
    """Looks keys up in all shards of a store at once, without a lock; any number of threads may share it.

    :param indexes: the shards' indexes, in order of their numbers
    """

    cdef list indexes
    cdef Table *tables[4096]
    cdef uint32_t shards
    cdef KeyTypes types
    cdef uint64_t k0
    cdef uint64_t k1

    def __init__(self, indexes):
        cdef LogIndex index
        self.indexes = list(indexes)
        if not 1 <= len(self.indexes) <= 4096:
            raise ValueError(f"{len(self.indexes)} shards: must be 1-4096")
        self.shards = <uint32_t>len(self.indexes)
        for i, index in enumerate(self.indexes):
            self.tables[i] = &index.table
        index = self.indexes[0]
        self.types = index.types
        self.k0, self.k1 = index.table.k0, index.table.k1

    def get(self, int kind, const uint8_t[::1] key not None):
        """The payload that was last put under a key, or None."""
        cdef uint8_t entry[256]
        cdef Query query
        cdef int failed
        check_key(self.types, kind, key.shape[0])
        query.tables, query.shards, query.kind, query.entry = self.tables, self.shards, kind, entry
        query.keys, query.key_size = &key[0], <int>key.shape[0]
        with nogil:
            failed = guarded(get_guarded, &query)
        if failed:
            raise unreadable("looking up a key")
        if not query.count:
            return None
        return PyBytes_FromStringAndSize(<const char *>entry + 2, entry[0] - 2)

    def get_many(self, int kind, const uint8_t[:, ::1] keys not None, Py_ssize_t payload_size):
        """Look up (n, key size) keys of a type whose payloads have one size.

        Returns (found, payloads): (n,) bool and (n, payload_size) uint8, rows of zeros where nothing is found.
        """
        cdef Py_ssize_t n = keys.shape[0]
        cdef Query query
        cdef int failed
        check_key(self.types, kind, keys.shape[1])
        if not 0 < payload_size <= ENTRY_MAX - 2:
            raise ValueError(f"payloads of {payload_size} bytes")
        found = np.empty(n, np.uint8)
        payloads = np.empty((n, payload_size), np.uint8)
        cdef uint8_t[::1] flags = found
        cdef uint8_t[:, ::1] rows = payloads
        if n:
            query.tables, query.shards, query.kind, query.count = self.tables, self.shards, kind, n
            query.keys, query.key_size = &keys[0, 0], <int>keys.shape[1]
            query.flags, query.rows, query.payload_size = &flags[0], &rows[0, 0], <int>payload_size
            with nogil:
                failed = guarded(get_many_guarded, &query)
            if failed:
                raise unreadable("looking up keys")
        return found.view(bool), payloads
