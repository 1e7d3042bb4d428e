"""A query: what is asked of all shards at once, how far its answer is, and the searches that answer one key or those
of a chunk that no index knows."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from siltstone.hash_store.older cimport Older
from siltstone.hash_store.search cimport KEY_ABSENT, PAGE_DAMAGED, Held, find, is_tombstone
from siltstone.index.layout cimport Table, unchanged
from siltstone.index.pending cimport Waiting
from siltstone.index.search cimport Found, Patience, lookup
from siltstone.lookup.older cimport (
    DAMAGED_STORE, NOWHERE, OTHER_STORES, SOMEWHERE, InOlder, Missed, ask_older, expect_level, keep_missed, open_older)


cdef struct Query:
    Table **tables
    Waiting **pending       # NULL, or for each shard NULL or what is on its way to it
    uint32_t shards
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    Py_ssize_t done         # keys that were answered
    uint8_t *flags
    uint8_t *rows
    int payload_size
    uint8_t *entry
    bint no_memory          # why no more were, or
    Found stop              # UNMAPPED, STUCK, DAMAGED or WAITS, or
    InOlder older           # OTHER_STORES or DAMAGED_STORE
    uint32_t shard          # where
    uint32_t journal
    uint32_t part           # of a hash store
    uint32_t cluster


cdef inline Found search(Query *query, uint32_t shard, uint64_t hashed, const uint8_t *key, uint8_t *entry) noexcept nogil:
    """Look one key up with all patience; where that was not enough, the query says where."""
    cdef Patience patience
    patience.waits, patience.damaged = 0, False
    query.older = NOWHERE
    query.stop = lookup(query.tables[shard], hashed, query.kind, key, query.key_size, entry, &patience)
    query.shard = shard
    query.journal = patience.journal
    query.cluster = patience.cluster
    return query.stop


cdef inline void fill(Query *query, Py_ssize_t i, bint present, const uint8_t *entry) noexcept nogil:
    """Write the row of key i: the entry that was found, where there is one and it has the size that is asked for."""
    query.flags[i] = present and entry[0] - 2 == query.payload_size
    if query.flags[i]:
        memcpy(query.rows + i * query.payload_size, entry + 2, query.payload_size)
    else:
        memset(query.rows + i * query.payload_size, 0, query.payload_size)


cdef inline bint search_older(Query *query, uint32_t shard, uint64_t hashed, const uint8_t *key, uint8_t *entry) noexcept nogil:
    """Look on in the hash stores of a shard, which has no answer itself; False where the query must stop."""
    query.older = ask_older(query.tables[shard], hashed, query.kind, key, query.key_size, entry, &query.part,
                            &query.cluster)
    return query.older <= SOMEWHERE


cdef inline bint answer_missed(Query *query, Missed *missed, const uint64_t *hashes, const uint32_t *shards,
                        uint8_t *entry) noexcept nogil:
    """Answer keys of a chunk from hash stores, the newest first, each step for all of them; False: stop."""
    cdef Missed all = missed[0]
    cdef Held held
    cdef uint32_t level = 0
    cdef int i, left, key
    cdef bint same
    while missed.count:
        expect_level(missed, level, hashes)
        left = 0
        for i in range(missed.count):
            key = missed.keys[i]
            held = KEY_ABSENT
            if missed.pages[i] >= 0:
                held = find(missed.older[i].parts[missed.parts[i]], missed.pages[i], hashes[key], query.kind,
                            query.keys + key * query.key_size, query.key_size, entry, &query.cluster)
            if held == PAGE_DAMAGED:
                query.shard, query.part = shards[key], <uint32_t>missed.parts[i]
                same = unchanged(&query.tables[shards[key]].listed.sequence, missed.seen[i])
                query.older = DAMAGED_STORE if same else OTHER_STORES
                return False
            if held != KEY_ABSENT:
                fill(query, key, not is_tombstone(entry), entry)
            elif missed.older[i].count > level + 1:
                keep_missed(missed, left, i)
                left += 1
        missed.count = left
        level += 1
    for i in range(all.count):
        # What was found in an extent counts only if that was not given to somebody else meanwhile.
        if not unchanged(&query.tables[shards[all.keys[i]]].listed.sequence, all.seen[i]):
            query.older, query.shard = OTHER_STORES, shards[all.keys[i]]
            return False
    return True


cdef inline bint miss(Query *query, Missed *missed, int i, uint32_t shard) noexcept nogil:
    """The index of a shard knows nothing of key i of a chunk: no, unless a hash store does; False: stop."""
    cdef Older *older
    cdef uint64_t seen
    query.flags[i] = 0
    memset(query.rows + i * query.payload_size, 0, query.payload_size)
    if not open_older(query.tables[shard], &seen, &older):
        query.older, query.shard = OTHER_STORES, shard
        return False
    if older != NULL and older.count:
        missed.keys[missed.count], missed.older[missed.count], missed.seen[missed.count] = i, older, seen
        missed.count += 1
    return True
