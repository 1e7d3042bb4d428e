"""Lookups in the indexes and hash stores of all shards, without a lock.

What is on its way to an index is asked first: what has left there by then is in the index. And once more behind the
index, where anything was added meanwhile: the index may show by now what came after that and is not on its way for
anybody to see (a batch that is waited for, a deletion), and the next lookup would find the older one, on its way still.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from siltstone.hash_store.older cimport OlderStores
from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport (
    BUCKET, CHUNK, CLUSTER, ENTRY_MAX, FINGERPRINTS, OFFSET_BITS, OFFSETS, PLACE_BITS, PLACES, SLOT_CLUSTERS,
    TAIL_IN_LOG, TYPE_DELETE, Journal, Map, Seals, Segment, Table, bucket, buckets_of, key_hash, load_acquire, load_byte,
    load_half, load_relaxed, prefetch, seals_known, segment_of, shard_of, unchanged)
from siltstone.index.mapped cimport MappedIndex, Turns, all_turns, begin_lookup, end_lookup
from siltstone.index.pending cimport (
    ASK_THE_INDEX, PUT, Answer, Pending, Waiting, added, close_waiting, expect, is_empty, newest, open_waiting)
from siltstone.index.search cimport DAMAGED, PRESENT, UNMAPPED, WAITS, Found, fits, names
from siltstone.index.types cimport KeyTypes, check_key
from siltstone.lookup.older cimport DAMAGED_STORE, NOWHERE, OTHER_STORES, Missed
from siltstone.lookup.query cimport Query, answer_missed, fill, miss, search, search_older

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef enum:
    SHARDS_MAX = 4096
    # Maps that one lookup may make before it is any further: more is a writer that goes round in circles.
    MAPS_MAX = 4096


cdef bint quick(Table *table, uint64_t slot, uint64_t life, int kind, const uint8_t *key, int size, uint8_t *out,
                int payload_size) noexcept nogil:
    """Whether the entry that a slot named in a journal of this life is the key's; its payload in `out` then."""
    cdef Journal *journal = &table.journals[(slot & PLACES) >> OFFSET_BITS]
    cdef Map *seen_at = &table.maps[(slot & PLACES) >> OFFSET_BITS]
    cdef uint64_t offset = slot & OFFSETS
    cdef uint64_t seen = load_acquire(&journal.sequence)
    # 0 is no life: base and length may be in the middle of a change under it.
    cdef bint mapped = life != 0 and load_acquire(&seen_at.life) == life
    cdef uint64_t length = seen_at.length
    cdef Seals *seals = seen_at.seals
    cdef const uint8_t *at = seen_at.base + offset
    if (seen & 1 or not mapped or load_relaxed(&journal.life) != life or offset + payload_size + 2 > length
            or not unchanged(&seen_at.life, life)):
        return False
    if (load_half(&journal.tail_kind) != TAIL_IN_LOG
            and (offset >> 12) == <uint64_t>load_half(&journal.tail_index) + SLOT_CLUSTERS):
        return False
    if seals != NULL and not seals_known(seals, offset >> 12):
        return False
    if load_byte(at) != payload_size + 2 or (offset & (CLUSTER - 1)) + payload_size + 2 > CLUSTER or at[1] != kind:
        return False
    if payload_size < table.key_offset[kind] + size or memcmp(at + 2 + table.key_offset[kind], key, size):
        return False
    memcpy(out, at + 2, payload_size)
    return unchanged(&journal.sequence, seen)


cdef bint ask_pending(Query *query, Py_ssize_t i, const uint64_t *hashes, const uint32_t *shards, bint *answered,
                      uint8_t *entry) noexcept nogil:
    """Answer from the pending entries of one shard what keys i and on of a chunk ask of it; False without memory."""
    cdef Waiting *waiting = query.pending[shards[i]]
    cdef uint32_t shard = shards[i]
    cdef Py_ssize_t begin = i
    cdef Answer answer
    if not open_waiting(waiting):
        return False
    for i in range(begin, query.count):
        if shards[i] == shard:
            expect(waiting, hashes[i])
    for i in range(begin, query.count):
        if shards[i] != shard or answered[i]:
            continue
        answer = newest(waiting, hashes[i], query.kind, query.keys + i * query.key_size, query.key_size, entry)
        if answer != ASK_THE_INDEX:
            answered[i] = True
            fill(query, i, answer == PUT, entry)
    close_waiting(waiting)
    return True


cdef inline bint any_pending(Query *query, const uint32_t *shards, uint64_t *seen) noexcept nogil:
    """Whether anything is on its way to a shard of a chunk; how much ever was, by key, in `seen`."""
    cdef Py_ssize_t i
    cdef Waiting *waiting
    cdef bint found = False
    for i in range(query.count):
        waiting = query.pending[shards[i]]
        if waiting != NULL:
            seen[i] = added(waiting)
            found |= not is_empty(waiting)
    return found


cdef inline bint any_added(Query *query, const uint32_t *shards, const uint64_t *seen) noexcept nogil:
    """Whether anything more has been on its way to a shard of a chunk since :func:`any_pending`."""
    cdef Py_ssize_t i
    for i in range(query.count):
        if query.pending[shards[i]] != NULL and added(query.pending[shards[i]]) != seen[i]:
            return True
    return False


cdef bint ask_all_pending(Query *query, const uint64_t *hashes, const uint32_t *shards, bint *answered,
                          uint8_t *entry) noexcept nogil:
    """Answer what the pending entries of the shards of a chunk know, each lock taken once; False without memory."""
    cdef bint asked[CHUNK]
    cdef Py_ssize_t i, j
    for i in range(query.count):
        answered[i] = False
        asked[i] = query.pending[shards[i]] == NULL or is_empty(query.pending[shards[i]])
    for i in range(query.count):
        if asked[i]:
            continue
        for j in range(i, query.count):
            asked[j] |= shards[j] == shards[i]
        if not ask_pending(query, i, hashes, shards, answered, entry):
            query.no_memory = True
            return False
    return True


cdef bint get_chunk(Query *query) noexcept nogil:
    """Look up at most CHUNK keys in three passes, so that each waits for memory once for all of them.

    False where the query has come to a stop.
    """
    cdef uint64_t hashes[CHUNK]
    cdef uint64_t slots_found[CHUNK]
    cdef uint64_t lives[CHUNK]
    cdef uint64_t sequences[CHUNK]
    cdef uint64_t seen[CHUNK]
    cdef uint8_t entry[256]
    cdef uint32_t shards[CHUNK]
    cdef bint answered[CHUNK]
    cdef bint asked
    cdef Missed missed
    cdef Table *table
    cdef Segment *segment
    cdef uint64_t *one
    cdef uint64_t *two
    cdef uint64_t *slots_one[CHUNK]
    cdef uint64_t *slots_two[CHUNK]
    cdef uint64_t number, first, second, slot, fingerprint, buckets, window
    cdef uint64_t *found_at
    cdef const uint8_t *base
    cdef Py_ssize_t i
    cdef int lane
    cdef uint64_t k0 = query.tables[0].k0, k1 = query.tables[0].k1
    cdef int size = query.key_size
    cdef Found found
    for i in range(query.count):
        hashes[i] = key_hash(k0, k1, query.kind, query.keys + i * size, size)
        shards[i] = shard_of(hashes[i], query.shards)
        table = query.tables[shards[i]]
        number = segment_of(table, hashes[i])
        segment = &table.segments[number]
        sequences[i] = load_acquire(&segment.sequence)
        buckets, window = load_half(&segment.buckets), load_half(&segment.window) & 1
        if not fits(table, buckets):
            # Odd sends what is not found to the patient search.
            buckets, sequences[i] = 1, 1
        buckets_of(hashes[i] & FINGERPRINTS, buckets, &first, &second)
        slots_one[i] = bucket(table, number, window, first)
        slots_two[i] = bucket(table, number, window, second)
        prefetch(slots_one[i])
        prefetch(slots_two[i])
    # Before the first look at a slot: what is gone from there by now is in the index by now.
    asked = query.pending != NULL and any_pending(query, shards, seen)
    if asked and not ask_all_pending(query, hashes, shards, answered, entry):
        return False
    for i in range(query.count):
        one, two = slots_one[i], slots_two[i]
        fingerprint = hashes[i] & FINGERPRINTS
        slots_found[i], found_at = 0, one
        for lane in range(BUCKET):
            slot = load_relaxed(&one[lane])
            if slot >> PLACE_BITS == fingerprint and slot:
                slots_found[i], found_at = slot, &one[lane]
            slot = load_relaxed(&two[lane])
            if slot >> PLACE_BITS == fingerprint and slot:
                slots_found[i], found_at = slot, &two[lane]
        if slots_found[i]:
            if not names(query.tables[shards[i]], found_at, slots_found[i], &lives[i]):
                lives[i] = 0
            base = query.tables[shards[i]].maps[(slots_found[i] & PLACES) >> OFFSET_BITS].base
            prefetch(base + (slots_found[i] & OFFSETS))
            prefetch(base + (slots_found[i] & OFFSETS) + 49)
    missed.count = 0
    for i in range(query.count):
        if asked and answered[i]:
            continue
        table = query.tables[shards[i]]
        if slots_found[i] == 0:
            # Nothing bears the fingerprint, and no move or growth went on meanwhile: it is not there.
            if not sequences[i] & 1 and unchanged(&table.segments[segment_of(table, hashes[i])].sequence, sequences[i]):
                if not miss(query, &missed, <int>i, shards[i]):
                    return False
                continue
        elif quick(table, slots_found[i], lives[i], query.kind, query.keys + i * size, size,
                   query.rows + i * query.payload_size, query.payload_size):
            query.flags[i] = 1
            continue
        found = search(query, shards[i], hashes[i], query.keys + i * size, entry)
        if found > PRESENT or (found != PRESENT and not miss(query, &missed, <int>i, shards[i])):
            return False
        if found == PRESENT:
            fill(query, i, entry[1] != TYPE_DELETE, entry)
    if missed.count and not answer_missed(query, &missed, hashes, shards, entry):
        return False
    if query.pending == NULL or not any_added(query, shards, seen):
        return True
    return ask_all_pending(query, hashes, shards, answered, entry)


cdef bint get_pending(Query *query, Waiting *waiting, uint64_t hashed) noexcept nogil:
    """Answer one key from what is on its way to its shard; True where that does, or there is no memory for it."""
    cdef Answer answer
    if not open_waiting(waiting):
        query.no_memory = True
        return True
    answer = newest(waiting, hashed, query.kind, query.keys, query.key_size, query.entry)
    close_waiting(waiting)
    if answer == ASK_THE_INDEX:
        return False
    query.flags[0] = answer == PUT
    query.done = 1
    return True


cdef void get_guarded(void *argument) noexcept nogil:
    cdef Query *query = <Query *>argument
    cdef uint64_t hashed = key_hash(query.tables[0].k0, query.tables[0].k1, query.kind, query.keys, query.key_size)
    cdef uint32_t shard = shard_of(hashed, query.shards)
    cdef Waiting *waiting = NULL if query.pending == NULL else query.pending[shard]
    cdef uint64_t seen = 0
    if waiting != NULL:
        seen = added(waiting)
        if not is_empty(waiting) and get_pending(query, waiting, hashed):
            return
    if search(query, shard, hashed, query.keys, query.entry) > PRESENT:
        return
    if query.stop != PRESENT and not search_older(query, shard, hashed, query.keys, query.entry):
        return
    query.flags[0] = query.entry[1] != TYPE_DELETE if query.stop == PRESENT or query.older != NOWHERE else False
    if waiting == NULL or added(waiting) == seen or not get_pending(query, waiting, hashed):
        query.done = 1


cdef void get_many_guarded(void *argument) noexcept nogil:
    cdef Query *query = <Query *>argument
    cdef Query part = query[0]
    while query.done < query.count:
        part.count = query.count - query.done if query.count - query.done < CHUNK else CHUNK
        part.keys = query.keys + query.done * query.key_size
        part.flags = query.flags + query.done
        part.rows = query.rows + query.done * query.payload_size
        if not get_chunk(&part):
            query.stop, query.shard, query.journal, query.no_memory = part.stop, part.shard, part.journal, part.no_memory
            query.older, query.part, query.cluster = part.older, part.part, part.cluster
            return
        query.done += part.count


cdef class Reader:
    """Looks keys up in all shards of a store at once, without a lock; any number of threads may share it.

    :param indexes: the shards' indexes, in order of their numbers: LogIndex or IndexView
    :param pending: for each shard the entries that are on their way to its index, or None where there never are any
    :param stuck: is called with the number of a shard whose writer stays in the middle of a change, be it that it
        was stopped, died, or only lost its processor for a while; when it returns, the lookup goes on, and when it
        raises, that ends the lookup. Without it a lookup waits for ever.
    """

    cdef list indexes
    cdef list pending
    cdef Table *tables[SHARDS_MAX]
    cdef Waiting *waiting[SHARDS_MAX]
    cdef uint32_t shards
    cdef KeyTypes types
    cdef object stuck
    cdef Turns *turns

    def __init__(self, indexes, pending=None, stuck=None):
        cdef MappedIndex index
        cdef Pending entries
        self.indexes = list(indexes)
        if not 1 <= len(self.indexes) <= SHARDS_MAX:
            raise ValueError(f"{len(self.indexes)} shards: must be 1-{SHARDS_MAX}")
        self.shards = <uint32_t>len(self.indexes)
        self.stuck = stuck
        self.turns = all_turns()
        for i, index in enumerate(self.indexes):
            self.tables[i] = &index.table
        index = self.indexes[0]
        self.types = index.types
        self.pending = None if pending is None else list(pending)
        if self.pending is None:
            return
        if len(self.pending) != len(self.indexes):
            raise ValueError(f"pending entries of {len(self.pending)} shards, indexes of {len(self.indexes)}")
        for i, entries in enumerate(self.pending):
            self.waiting[i] = NULL if entries is None else &entries.waiting
            if entries is not None and (entries.waiting.table.k0, entries.waiting.table.k1) != (
                    index.table.k0, index.table.k1):
                raise ValueError(f"the pending entries of shard {i} have another secret than the indexes")

    def get(self, int kind, const uint8_t[::1] key not None):
        """The payload that was last put under a key, or None."""
        cdef uint8_t entry[256]
        cdef uint8_t present = 0
        cdef Query query
        check_key(self.types, kind, key.shape[0])
        query.tables, query.shards, query.kind, query.entry = self.tables, self.shards, kind, entry
        query.keys, query.key_size, query.count, query.flags = &key[0], <int>key.shape[0], 1, &present
        self.answer(get_guarded, &query)
        if not present:
            return None
        return PyBytes_FromStringAndSize(<const char *>entry + 2, entry[0] - 2)

    def get_many(self, int kind, const uint8_t[:, ::1] keys not None, Py_ssize_t payload_size):
        """Look up (n, key size) keys of a type whose payloads have one size.

        Returns (found, payloads): (n,) bool and (n, payload_size) uint8, rows of zeros where nothing is found.
        """
        cdef Py_ssize_t n = keys.shape[0]
        cdef Query query
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
            self.answer(get_many_guarded, &query)
        return found.view(bool), payloads

    cdef int answer(self, void (*look)(void *) noexcept nogil, Query *query) except -1:
        """Let `look` answer all of a query; between its attempts map what it did not find, wait for whom it met."""
        cdef Py_ssize_t before = 0
        cdef int failed, turn, maps = 0
        query.done, query.no_memory = 0, False
        query.pending = NULL if self.pending is None else self.waiting
        while True:
            # What stopped the last attempt is not what stops this one.
            query.older, query.stop = NOWHERE, PRESENT
            turn = begin_lookup(self.turns)
            with nogil:
                failed = guarded(look, query)
            end_lookup(self.turns, turn)
            if failed:
                raise unreadable("looking up keys")
            if query.done == query.count:
                return 0
            if query.no_memory:
                raise MemoryError("no memory to look up pending entries")
            if query.stop == DAMAGED:
                raise (<MappedIndex>self.indexes[query.shard]).damage(query.journal, query.cluster)
            if query.done > before:
                before, maps = query.done, 0
            # Where nobody brings segments back, one that waits is a writer that does not come to the end of a change.
            if query.stop == WAITS and maps < MAPS_MAX and (<MappedIndex>self.indexes[query.shard]).loader is not None:
                maps += 1
                (<MappedIndex>self.indexes[query.shard]).load(query.journal)
                continue
            if query.older == DAMAGED_STORE:
                raise self.damage(query)
            if query.older == OTHER_STORES and maps < MAPS_MAX:
                maps += 1
                if (<MappedIndex>self.indexes[query.shard]).renew_older():
                    continue
            if query.stop == UNMAPPED and maps < MAPS_MAX:
                maps += 1
                (<MappedIndex>self.indexes[query.shard]).map_again(query.journal)
                continue
            maps = 0
            PyErr_CheckSignals()
            if self.stuck is not None:
                self.stuck(query.shard)
            else:
                with nogil:
                    sched_yield()

    cdef object damage(self, Query *query):
        """The error for a damaged page of a hash store."""
        older = (<MappedIndex>self.indexes[query.shard]).older
        return (<OlderStores>older).damage(query.part, query.cluster)
