"""The index of a shard: a compact table from key hash to the place of an entry, in shareable memory.

A slot has 8 bytes: 28 bits of fingerprint and 36 bits of place (10 of journal number, 26 of byte offset in its
extent). The table of a shard is cut into segments; a fingerprint has two buckets of four slots in its segment,
both computed from the fingerprint alone, so that slots move (cuckoo moves, growth) without a look at any key.
A segment that is full is rebuilt a quarter larger in the other of its two windows of address space. Segments
start at sizes spread over that quarter, so that at any time some are just grown and some nearly full: memory
per record stays even, and no growth stops the world.

One writer, many readers. Each slot is written by one atomic store; what moves slots, and what changes where
a tail lies, makes a sequence number odd first and even after, and a reader that sees it change looks again.
All of it lies at offsets in one buffer, which may be shared memory. After SILT (SOSP 2011) and MemC3 (NSDI 2013).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from siltstone.errors import EntryError, MediumError

cdef extern from "index/siphash.h" nogil:
    uint64_t sip_load(const uint8_t *at)
    uint64_t siphash13(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size)
    uint64_t siphash24(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size)

cdef extern from "index/guard.h" nogil:
    int guard_install()
    int guarded(void (*call)(void *) noexcept nogil, void *argument)

cdef extern from "sys/mman.h" nogil:
    int madvise(void *where, size_t length, int advice)
    int MADV_DONTNEED
    int MADV_REMOVE

cdef extern from * nogil:
    """
    #include <stdint.h>
    #define prefetch(at) __builtin_prefetch((const void *)(at))
    #define lowest_bit(bits) __builtin_ctz(bits)
    static inline unsigned free_lanes(const uint64_t *slots) {
        return (slots[0] == 0) | (slots[1] == 0) << 1 | (slots[2] == 0) << 2 | (slots[3] == 0) << 3;
    }
    static inline unsigned popcount(unsigned bits) { /* of 4 bits */
        return (0x4332322132212110u >> (4 * bits)) & 7;
    }
    static inline uint64_t load_acquire(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline uint64_t load_relaxed(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    static inline void store_release(uint64_t *at, uint64_t word) { __atomic_store_n(at, word, __ATOMIC_RELEASE); }
    static inline void begin_change(uint64_t *sequence) {
        __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    static inline void end_change(uint64_t *sequence) { __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELEASE); }
    static inline int unchanged(const uint64_t *sequence, uint64_t seen) {
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        return __atomic_load_n(sequence, __ATOMIC_RELAXED) == seen;
    }
    """
    void prefetch(const void *at)
    unsigned int lowest_bit(unsigned int bits)
    unsigned int free_lanes(const uint64_t *slots)
    unsigned int popcount(unsigned int bits)
    uint64_t load_acquire(const uint64_t *at)
    uint64_t load_relaxed(const uint64_t *at)
    void store_release(uint64_t *at, uint64_t word)
    void begin_change(uint64_t *sequence)
    void end_change(uint64_t *sequence)
    bint unchanged(const uint64_t *sequence, uint64_t seen)

cdef enum:
    CLUSTER = 4096
    SLOT_CLUSTERS = 2
    TYPE_DELETE = 0x04
    PLACE_BITS = 36       # fingerprint in the 28 bits above
    OFFSET_BITS = 26
    JOURNALS = 1024
    BUCKET = 4
    SEGMENT_BUCKETS_FIRST = 96
    SEARCH_NODES = 200
    FILL_PERCENT = 94
    CHUNK = 64
    ENTRY_MAX = 254

    TAIL_IN_LOG = 0       # the last cluster is where its number says
    TAIL_IN_MEMORY = 1    # it is the unwritten tail
    TAIL_IN_SLOT = 2      # it is in tail slot 0 or 1 of the extent

cdef uint64_t FINGERPRINTS = (<uint64_t>1 << 28) - 1
cdef uint64_t PLACES = (<uint64_t>1 << PLACE_BITS) - 1
cdef uint64_t OFFSETS = (<uint64_t>1 << OFFSET_BITS) - 1
cdef uint64_t MAGIC = <uint64_t>0x53494C5453494458

JOURNALS_MAX = JOURNALS
JOURNAL_BYTES_MAX = 1 << OFFSET_BITS
#: bytes of a slot, for formulas
SLOT_BYTES = 8

cdef struct Journal:
    uint64_t sequence
    uint32_t tail_index
    uint32_t tail_kind
    uint64_t tail_slot
    uint64_t reserved

cdef struct Segment:
    uint64_t sequence
    uint32_t buckets
    uint32_t window
    uint32_t records
    uint32_t reserved
    uint64_t reserved2

cdef struct Header:
    uint64_t magic
    uint64_t segments
    uint64_t window_bytes
    uint64_t records
    uint64_t bytes

cdef enum:
    JOURNALS_AT = 4096
    TAIL_AT = 4096 + 32 * 1024
    SEGMENTS_AT = 4096 + 32 * 1024 + 4096

cdef struct Table:
    Header *header
    Journal *journals
    Segment *segments
    uint8_t *tail
    uint8_t *windows
    uint64_t segment_mask
    uint64_t window_bytes
    const uint8_t **bases
    const int *key_offset       # per type, -1 where it has no key
    const int *key_size
    const uint8_t *known
    uint64_t k0
    uint64_t k1

ctypedef enum Found:
    ABSENT = 0
    PRESENT = 1
    RETRY = 2


def layout_bytes(Py_ssize_t segments, Py_ssize_t window_bytes):
    """Bytes of address space that an index of `segments` segments takes; hardly any are touched at first."""
    return windows_at(segments) + segments * 2 * window_bytes


cdef Py_ssize_t windows_at(Py_ssize_t segments) noexcept:
    return SEGMENTS_AT + (segments * <Py_ssize_t>sizeof(Segment) + 4095) // 4096 * 4096


def siphash_2_4(const uint8_t[::1] data, const uint8_t[::1] key):
    """SipHash-2-4, so that a test can hold the rounds against the paper's vectors."""
    return siphash24(sip_load(&key[0]), sip_load(&key[8]), &data[0] if data.shape[0] else NULL, data.shape[0])


cdef inline uint64_t key_hash(uint64_t k0, uint64_t k1, int kind, const uint8_t *key, int size) noexcept nogil:
    return siphash13(k0, k1 ^ <uint64_t>kind, key, size)


cdef inline uint32_t shard_of(uint64_t hashed, uint32_t shards) noexcept nogil:
    return <uint32_t>(((hashed >> 32) * shards) >> 32)


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x ^= x >> 33
    x *= <uint64_t>0xFF51AFD7ED558CCD
    x ^= x >> 29
    x *= <uint64_t>0xC4CEB9FE1A85EC53
    return x ^ (x >> 32)


cdef inline uint64_t *bucket(Table *table, uint64_t number, uint64_t window, uint64_t index) noexcept nogil:
    return <uint64_t *>(table.windows + (number * 2 + window) * table.window_bytes + index * (BUCKET * 8))


cdef inline void buckets_of(uint64_t fingerprint, uint64_t buckets, uint64_t *first, uint64_t *second) noexcept nogil:
    cdef uint64_t mixed = mix(fingerprint)
    first[0] = ((mixed >> 32) * buckets) >> 32
    second[0] = ((mixed & <uint64_t>0xFFFFFFFF) * buckets) >> 32
    if second[0] == first[0]:
        second[0] = first[0] + 1 if first[0] + 1 < buckets else 0


cdef inline uint64_t segment_of(Table *table, uint64_t hashed) noexcept nogil:
    return (hashed >> 28) & table.segment_mask


cdef Found read_entry(Table *table, uint64_t place, uint8_t *out) noexcept nogil:
    """Copy the entry at `place` to `out` (256 bytes) as it stood at one moment. RETRY: its journal is going away."""
    cdef Journal *journal = &table.journals[place >> OFFSET_BITS]
    cdef uint64_t offset = place & OFFSETS, seen
    cdef uint64_t inside = offset & (CLUSTER - 1)
    cdef const uint8_t *base
    cdef const uint8_t *at
    cdef uint32_t size, kind
    while True:
        seen = load_acquire(&journal.sequence)
        if seen & 1:
            continue
        base = table.bases[place >> OFFSET_BITS]
        if base == NULL:
            return RETRY
        kind = journal.tail_kind
        if kind != TAIL_IN_LOG and (offset >> 12) == <uint64_t>journal.tail_index + SLOT_CLUSTERS:
            at = (<const uint8_t *>table.tail if kind == TAIL_IN_MEMORY else base + journal.tail_slot * CLUSTER) + inside
        else:
            at = base + offset
        size = at[0]
        if size < 2 or inside + size > CLUSTER:
            size = 2
        memcpy(out, at, size)
        if unchanged(&journal.sequence, seen):
            return PRESENT


cdef inline bint same_key(Table *table, const uint8_t *entry, int kind, const uint8_t *key, int size) noexcept nogil:
    return (entry[1] == kind and entry[0] >= 2 + table.key_offset[kind] + size
            and memcmp(entry + 2 + table.key_offset[kind], key, size) == 0)


cdef inline bint has_fingerprint(const uint64_t *one, const uint64_t *two, uint64_t fingerprint) noexcept nogil:
    """Whether a slot of two buckets may hold the fingerprint; an empty slot counts for fingerprint 0."""
    cdef int lane
    cdef bint found = False
    for lane in range(BUCKET):
        found |= one[lane] >> PLACE_BITS == fingerprint
        found |= two[lane] >> PLACE_BITS == fingerprint
    return found


cdef uint64_t *find_slot(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil:
    """The writer's own search: the slot that holds the key, or NULL."""
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second
    cdef uint64_t *slots
    cdef uint8_t entry[256]
    cdef int which, i
    buckets_of(fingerprint, segment.buckets, &first, &second)
    for which in range(2):
        slots = bucket(table, number, segment.window, second if which else first)
        for i in range(BUCKET):
            if slots[i] and slots[i] >> PLACE_BITS == fingerprint:
                if read_entry(table, slots[i] & PLACES, entry) == PRESENT and same_key(table, entry, kind, key, size):
                    return &slots[i]
    return NULL


cdef Found lookup(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out) noexcept nogil:
    """Any reader's search: PRESENT with the entry in `out` (256 bytes), or ABSENT."""
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second, seen, buckets, window, slot
    cdef uint64_t *slots
    cdef int which, i
    cdef bint again
    while True:
        seen = load_acquire(&segment.sequence)
        if seen & 1:
            continue
        buckets, window = segment.buckets, segment.window & 1
        if buckets == 0 or buckets * (BUCKET * 8) > table.window_bytes:
            continue
        buckets_of(fingerprint, buckets, &first, &second)
        again = False
        for which in range(2):
            slots = bucket(table, number, window, second if which else first)
            for i in range(BUCKET):
                slot = load_relaxed(&slots[i])
                if slot and slot >> PLACE_BITS == fingerprint:
                    if read_entry(table, slot & PLACES, out) == RETRY:
                        again = True
                    elif same_key(table, out, kind, key, size):
                        return PRESENT
        if not again and unchanged(&segment.sequence, seen):
            return ABSENT


cdef struct Node:
    uint32_t index
    int parent
    int lane


cdef bint make_room(Table *table, uint64_t number, uint64_t window, uint64_t buckets, uint64_t first, uint64_t second,
                    uint64_t **room) noexcept nogil:
    """Free a slot in bucket `first` or `second`, both full, by the shortest chain of moves; False where there is none."""
    cdef Node nodes[SEARCH_NODES]
    cdef int count = 2, at = 0, lane
    cdef unsigned int holes
    cdef uint64_t one, two, other
    cdef uint64_t *slots
    cdef uint64_t *target
    nodes[0].index, nodes[0].parent, nodes[0].lane = <uint32_t>first, -1, 0
    nodes[1].index, nodes[1].parent, nodes[1].lane = <uint32_t>second, -1, 0
    while at < count:
        slots = bucket(table, number, window, nodes[at].index)
        for lane in range(BUCKET):
            buckets_of(slots[lane] >> PLACE_BITS, buckets, &one, &two)
            other = two if one == nodes[at].index else one
            holes = free_lanes(bucket(table, number, window, other))
            if holes:
                target = bucket(table, number, window, other) + lowest_bit(holes)
                # From the hole back to the root: each move fills the hole behind the one before.
                while True:
                    slots = bucket(table, number, window, nodes[at].index)
                    store_release(target, slots[lane])
                    target = &slots[lane]
                    store_release(target, 0)
                    if nodes[at].parent < 0:
                        break
                    lane = nodes[at].lane
                    at = nodes[at].parent
                room[0] = target
                return True
            if count < SEARCH_NODES:
                nodes[count].index, nodes[count].parent, nodes[count].lane = <uint32_t>other, at, lane
                count += 1
        at += 1
    return False


cdef inline uint64_t *free_slot(uint64_t *one, uint64_t *two) noexcept nogil:
    """A free slot in the emptier of two buckets, or NULL. Without branches that nothing predicts."""
    cdef unsigned int free_one = free_lanes(one), free_two = free_lanes(two)
    cdef bint second = popcount(free_two) > popcount(free_one)
    cdef unsigned int lanes = free_two if second else free_one
    cdef uint64_t *slots = two if second else one
    if lanes == 0:
        return NULL
    return slots + lowest_bit(lanes)


cdef bint rebuild(Table *table, uint64_t number, uint64_t buckets) noexcept nogil:
    """Fill the segment's other window, of `buckets` buckets, with its slots; False where they do not fit."""
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t fresh = 1 - segment.window, i, first, second, slot
    cdef uint64_t *old = bucket(table, number, segment.window, 0)
    cdef uint64_t *room
    for i in range(<uint64_t>segment.buckets * BUCKET):
        slot = old[i]
        if slot == 0:
            continue
        buckets_of(slot >> PLACE_BITS, buckets, &first, &second)
        room = free_slot(bucket(table, number, fresh, first), bucket(table, number, fresh, second))
        if room == NULL and not make_room(table, number, fresh, buckets, first, second, &room):
            return False
        room[0] = slot
    return True


cdef void release(Table *table, uint64_t number, uint64_t window, uint64_t buckets, bint shared) noexcept nogil:
    """Give a window's pages back; a reader that is still in it reads zeros, and looks again."""
    cdef size_t size = (buckets * (BUCKET * 8) + 4095) // 4096 * 4096
    if madvise(bucket(table, number, window, 0), size, MADV_REMOVE if shared else MADV_DONTNEED):
        memset(bucket(table, number, window, 0), 0, size)  # it must be empty when it is used again


cdef int grow(Table *table, uint64_t number, bint shared) noexcept nogil:
    """Rebuild a segment a quarter larger; 0, or -1 where its window ends."""
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t old = segment.buckets, window = segment.window, buckets = old
    while True:
        buckets += buckets // 4
        if buckets * (BUCKET * 8) > table.window_bytes:
            return -1
        if rebuild(table, number, buckets):
            break
        release(table, number, 1 - window, buckets, shared)
    begin_change(&segment.sequence)
    segment.buckets = <uint32_t>buckets
    segment.window = <uint32_t>(1 - window)
    end_change(&segment.sequence)
    table.header.bytes += (buckets - old) * (BUCKET * 8)
    release(table, number, window, old, shared)
    return 0


cdef int put(Table *table, uint64_t hashed, uint64_t place, int kind, const uint8_t *key, int size, bint shared) noexcept nogil:
    """Make `place` the key's; 0, or -1 where the segment cannot grow any more."""
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second, slot = fingerprint << PLACE_BITS | place
    cdef uint64_t *one
    cdef uint64_t *two
    cdef uint64_t *room
    cdef bint moved
    buckets_of(fingerprint, segment.buckets, &first, &second)
    one, two = bucket(table, number, segment.window, first), bucket(table, number, segment.window, second)
    if has_fingerprint(one, two, fingerprint):
        room = find_slot(table, hashed, kind, key, size)
        if room != NULL:
            store_release(room, slot)
            return 0
    while True:
        room = free_slot(one, two)
        if room != NULL:
            break
        # Past this fill the search for a move costs more than the memory that it saves.
        if <uint64_t>segment.records * 100 < <uint64_t>segment.buckets * BUCKET * FILL_PERCENT:
            begin_change(&segment.sequence)
            moved = make_room(table, number, segment.window, segment.buckets, first, second, &room)
            end_change(&segment.sequence)
            if moved:
                break
        if grow(table, number, shared):
            return -1
        buckets_of(fingerprint, segment.buckets, &first, &second)
        one, two = bucket(table, number, segment.window, first), bucket(table, number, segment.window, second)
    store_release(room, slot)
    segment.records += 1
    table.header.records += 1
    return 0


cdef void remove(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil:
    cdef uint64_t *slot = find_slot(table, hashed, kind, key, size)
    if slot != NULL:
        store_release(slot, 0)
        table.segments[segment_of(table, hashed)].records -= 1
        table.header.records -= 1


cdef inline bint keyed(Table *table, const uint8_t *entry, int *kind, const uint8_t **key, int *size) noexcept nogil:
    """The key that an entry puts or deletes; False where it has none."""
    kind[0] = entry[1]
    if kind[0] == TYPE_DELETE:
        if entry[0] < 3:
            return False
        kind[0] = entry[2]
        key[0] = entry + 3
        size[0] = entry[0] - 3
        return table.key_size[kind[0]] == size[0] and table.key_offset[kind[0]] >= 0
    if table.key_offset[kind[0]] < 0 or entry[0] < 2 + table.key_offset[kind[0]] + table.key_size[kind[0]]:
        return False
    key[0] = entry + 2 + table.key_offset[kind[0]]
    size[0] = table.key_size[kind[0]]
    return True


cdef int64_t apply_run(Table *table, const uint8_t *stream, Py_ssize_t size, uint64_t *positions, uint64_t place,
                       bint shared, int64_t *others, int64_t *unknown) noexcept nogil:
    """Put and delete what a run of entries says; entries applied, or -1 where the table cannot grow.

    Entry i is at positions[i], or without positions at `place` and on. `others` counts entries without a key; `unknown` becomes the place of the first of a type that is not known.
    """
    cdef uint64_t hashes[CHUNK]
    cdef uint64_t places[CHUNK]
    cdef const uint8_t *entries[CHUNK]
    cdef const uint8_t *key
    cdef int kind, key_size, count, i
    cdef Py_ssize_t at = 0
    cdef int64_t done = 0
    cdef uint64_t first, second, number
    while at < size:
        count = 0
        while count < CHUNK and at < size:
            if keyed(table, stream + at, &kind, &key, &key_size):
                entries[count] = stream + at
                places[count] = (place & ~OFFSETS) | positions[done] if positions != NULL else place + at
                hashes[count] = key_hash(table.k0, table.k1, kind, key, key_size)
                number = segment_of(table, hashes[count])
                buckets_of(hashes[count] & FINGERPRINTS, table.segments[number].buckets, &first, &second)
                prefetch(bucket(table, number, table.segments[number].window, first))
                prefetch(bucket(table, number, table.segments[number].window, second))
                count += 1
            else:
                others[0] += 1
                if not table.known[stream[at + 1]] and unknown[0] < 0:
                    unknown[0] = positions[done] if positions != NULL else (place & OFFSETS) + at
            done += 1
            at += stream[at]
        for i in range(count):
            keyed(table, entries[i], &kind, &key, &key_size)
            if entries[i][1] == TYPE_DELETE:
                remove(table, hashes[i], kind, key, key_size)
            elif put(table, hashes[i], places[i], kind, key, key_size, shared):
                return -1
    return done


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


cdef struct Run:
    Table *table
    const uint8_t *stream
    Py_ssize_t size
    uint64_t *positions
    uint64_t place
    bint shared
    int64_t others
    int64_t unknown
    int64_t done


cdef void apply_guarded(void *argument) noexcept nogil:
    cdef Run *run = <Run *>argument
    run.done = apply_run(run.table, run.stream, run.size, run.positions, run.place, run.shared, &run.others, &run.unknown)


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


cdef struct Contains:
    Table *table
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    uint8_t *flags


cdef void contains_guarded(void *argument) noexcept nogil:
    cdef Contains *query = <Contains *>argument
    cdef const uint8_t *key
    cdef uint64_t hashed
    cdef Py_ssize_t i
    for i in range(query.count):
        key = query.keys + i * query.key_size
        hashed = key_hash(query.table.k0, query.table.k1, query.kind, key, query.key_size)
        query.flags[i] = find_slot(query.table, hashed, query.kind, key, query.key_size) != NULL


cdef object unreadable(str while_doing):
    return MediumError(
        f"a mapped page could not be read while {while_doing}: the medium fails, or the file was cut short",
        operation="read")


cdef class KeyTypes:
    """Which entry types have a key, and where in their payload.

    :param keys: type id to (offset, size) [bytes]
    :param known: ids of types that may be met although they have no key here
    """

    cdef int offset[256]
    cdef int size[256]
    cdef uint8_t known[256]

    def __init__(self, keys, known=()):
        cdef int kind
        for kind in range(256):
            self.offset[kind] = -1
            self.size[kind] = 0
            self.known[kind] = kind == TYPE_DELETE or kind in keys or kind in known
        for kind, (offset, size) in keys.items():
            if not (0 <= kind <= 255 and 0 <= offset and 0 < size and offset + size <= ENTRY_MAX - 2):
                raise ValueError(f"key {offset, size} of type {kind:#04x}")
            self.offset[kind] = offset
            self.size[kind] = size


cdef class LogIndex:
    """The index of one shard, over memory that the caller provides; one writer at a time, readers at any time.

    :param memory: writable, zeroed, at least layout_bytes(segments, window_bytes); kept while the index lives
    :param types: which types have keys
    :param secret: 16 bytes; who knows them can choose keys that collide
    :param segments: a power of two
    :param window_bytes: most that one segment may take [bytes], a multiple of 4096
    :param shared: whether `memory` is shared (memfd) or private to this process
    """

    cdef Table table
    cdef const uint8_t *bases[JOURNALS]
    cdef list views
    cdef object memory
    cdef uint8_t[::1] bytes_view
    cdef readonly KeyTypes types
    cdef bint shared

    def __init__(self, memory, KeyTypes types not None, const uint8_t[::1] secret not None, Py_ssize_t segments,
                 Py_ssize_t window_bytes, bint shared=False):
        cdef Py_ssize_t i
        cdef uint8_t *base
        if segments < 1 or segments & (segments - 1) or segments > 65536:
            raise ValueError(f"{segments} segments: must be a power of two of at most 65536")
        if window_bytes % 4096 or window_bytes < 4096:
            raise ValueError(f"a window of {window_bytes} bytes: must be whole pages")
        if secret.shape[0] != 16:
            raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
        if guard_install():
            raise OSError("SIGBUS cannot be handled")
        self.memory = memory
        self.bytes_view = memory
        if self.bytes_view.shape[0] < layout_bytes(segments, window_bytes):
            raise ValueError(f"{self.bytes_view.shape[0]} bytes of memory are too few")
        if <size_t>&self.bytes_view[0] & 4095:
            raise ValueError("the memory must start at a page")
        self.types = types
        self.shared = shared
        self.views = [None] * JOURNALS
        base = &self.bytes_view[0]
        memset(self.bases, 0, sizeof(self.bases))
        self.table.header = <Header *>base
        self.table.journals = <Journal *>(base + JOURNALS_AT)
        self.table.tail = base + TAIL_AT
        self.table.segments = <Segment *>(base + SEGMENTS_AT)
        self.table.windows = base + windows_at(segments)
        self.table.segment_mask = segments - 1
        self.table.window_bytes = window_bytes
        self.table.bases = self.bases
        self.table.key_offset = types.offset
        self.table.key_size = types.size
        self.table.known = types.known
        self.table.k0 = sip_load(&secret[0])
        self.table.k1 = sip_load(&secret[8])
        self.table.header.magic = MAGIC
        self.table.header.segments = segments
        self.table.header.window_bytes = window_bytes
        for i in range(segments):
            # Sizes spread over the quarter that a segment grows by, see above.
            self.table.segments[i].buckets = <uint32_t>(SEGMENT_BUCKETS_FIRST * 1.25 ** (i / segments))
            self.table.header.bytes += self.table.segments[i].buckets * (BUCKET * 8)

    @property
    def records(self):
        """Keys in the index."""
        return self.table.header.records

    @property
    def bytes(self):
        """Bytes that the segments take."""
        return self.table.header.bytes

    def attach(self, int journal, view not None):
        """Let places in journal number `journal` be read from `view`, the bytes of its whole extent."""
        cdef const uint8_t[::1] data = view
        self.check_journal(journal)
        if data.shape[0] > JOURNAL_BYTES_MAX:
            raise ValueError(f"an extent of {data.shape[0]} bytes; at most {JOURNAL_BYTES_MAX}")
        self.views[journal] = (view, data)
        begin_change(&self.table.journals[journal].sequence)
        self.bases[journal] = &data[0]
        self.table.journals[journal].tail_kind = TAIL_IN_LOG
        end_change(&self.table.journals[journal].sequence)

    def detach(self, int journal):
        """Forget a journal that no slot names any more."""
        self.check_journal(journal)
        begin_change(&self.table.journals[journal].sequence)
        self.bases[journal] = NULL
        end_change(&self.table.journals[journal].sequence)

    cdef int check_journal(self, int journal) except -1:
        if not 0 <= journal < JOURNALS:
            raise ValueError(f"journal number {journal} is not in 0-{JOURNALS - 1}")
        return 0

    def publish_tail(self, int journal, uint32_t index, const uint8_t[::1] tail not None, uint32_t start):
        """Show readers the unwritten tail: log cluster `index`, whose bytes from `start` on are new.

        Where `index` is another than before, the cluster before must be readable where it was written.
        """
        cdef Journal *entry
        self.check_journal(journal)
        entry = &self.table.journals[journal]
        if tail.shape[0] != CLUSTER or start > CLUSTER:
            raise ValueError("a tail has 4096 bytes")
        if entry.tail_kind == TAIL_IN_MEMORY and entry.tail_index == index:
            # No reader looks at bytes that no slot names yet.
            memcpy(self.table.tail + start, &tail[start], CLUSTER - start)
            return
        begin_change(&entry.sequence)
        entry.tail_index = index
        entry.tail_kind = TAIL_IN_MEMORY
        memcpy(self.table.tail, &tail[0], CLUSTER)
        end_change(&entry.sequence)

    def publish_end(self, int journal, uint32_t index, slot):
        """Show readers where the last cluster of a journal lies that is not appended to: a slot, or None: the log."""
        cdef Journal *entry
        self.check_journal(journal)
        entry = &self.table.journals[journal]
        begin_change(&entry.sequence)
        entry.tail_index = index
        entry.tail_kind = TAIL_IN_LOG if slot is None else TAIL_IN_SLOT
        entry.tail_slot = 0 if slot is None else slot
        end_change(&entry.sequence)

    def apply(self, int journal, const uint8_t[::1] stream not None, uint64_t[::1] positions not None):
        """Put and delete what a packed stream of entries says, entry i at byte positions[i] of the extent.

        The entries must be readable there already. The last of equal keys wins. Returns the number of entries
        that have no key here. MemoryError where a segment would outgrow its window.
        """
        cdef Run run
        cdef int failed
        self.check_journal(journal)
        if stream.shape[0] == 0:
            return 0
        run.table, run.shared, run.others, run.unknown = &self.table, self.shared, 0, -1
        run.stream, run.size, run.positions = &stream[0], stream.shape[0], &positions[0]
        run.place = <uint64_t>journal << OFFSET_BITS
        with nogil:
            failed = guarded(apply_guarded, &run)
        if failed:
            raise unreadable("indexing")
        if run.done < 0:
            raise MemoryError("a segment of the index outgrew its window")
        return run.others

    def apply_clusters(self, int journal, const uint8_t[::1] clusters not None, uint32_t first_index, Py_ssize_t last_used):
        """Put and delete what whole, verified clusters say, from log cluster `first_index` on.

        Of the last cluster only the first `last_used` bytes count. Returns (entries, entries without a key here,
        byte offset in the extent of the first entry of a type that is not known, or None).
        """
        cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, i
        cdef int64_t entries = 0
        cdef int failed = 0
        cdef const uint8_t *cluster
        cdef Run run
        self.check_journal(journal)
        if clusters.shape[0] % CLUSTER:
            raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
        run.table, run.shared, run.others, run.unknown, run.done = &self.table, self.shared, 0, -1, 0
        run.positions = NULL
        with nogil:
            for i in range(count):
                cluster = &clusters[0] + i * CLUSTER
                run.stream = cluster
                run.size = cluster[4072] << 8 | cluster[4073]
                if i == count - 1 and last_used < run.size:
                    run.size = last_used
                run.place = <uint64_t>journal << OFFSET_BITS | (<uint64_t>first_index + i + SLOT_CLUSTERS) * CLUSTER
                failed = guarded(apply_guarded, &run)
                if failed or run.done < 0:
                    break
                entries += run.done
        if failed:
            raise unreadable("replaying")
        if run.done < 0:
            raise MemoryError("a segment of the index outgrew its window")
        return entries, run.others, None if run.unknown < 0 else run.unknown

    def contains_many(self, int kind, const uint8_t[:, ::1] keys not None):
        """Which of the (n, key size) keys are here, as (n,) bool."""
        found = np.zeros(keys.shape[0], np.uint8)
        cdef uint8_t[::1] flags = found
        cdef Contains query
        cdef int failed
        check_key(self.types, kind, keys.shape[1])
        if keys.shape[0]:
            query.table, query.kind, query.count = &self.table, kind, keys.shape[0]
            query.keys, query.key_size, query.flags = &keys[0, 0], <int>keys.shape[1], &flags[0]
            with nogil:
                failed = guarded(contains_guarded, &query)
            if failed:
                raise unreadable("looking up keys")
        return found.view(bool)


cdef int check_key(KeyTypes types, int kind, Py_ssize_t size) except -1:
    if not 0 <= kind <= 255 or types.offset[kind] < 0:
        raise EntryError(f"entry type {kind:#04x} has no key", type=kind)
    if size != types.size[kind]:
        raise EntryError(f"a key of type {kind:#04x} has {types.size[kind]} bytes, not {size}", type=kind, size=size)
    return 0


cdef class Router:
    """Chooses the shard of a key: from the key alone, evenly, for the life of a store.

    :param types: which types have keys
    :param secret: 16 bytes, the store's
    :param shards: how many there are
    """

    cdef uint64_t k0
    cdef uint64_t k1
    cdef uint32_t shards
    cdef KeyTypes types

    def __init__(self, KeyTypes types not None, const uint8_t[::1] secret not None, uint32_t shards):
        if secret.shape[0] != 16 or shards < 1:
            raise ValueError("a secret of 16 bytes and at least one shard are needed")
        self.k0 = sip_load(&secret[0])
        self.k1 = sip_load(&secret[8])
        self.shards = shards
        self.types = types

    def shard(self, int kind, const uint8_t[::1] key not None):
        """The shard of one key."""
        check_key(self.types, kind, key.shape[0])
        return shard_of(key_hash(self.k0, self.k1, kind, &key[0], <int>key.shape[0]), self.shards)

    def shards_of(self, int kind, const uint8_t[:, ::1] keys not None):
        """The shard of each of (n, key size) keys, as (n,) uint32."""
        cdef Py_ssize_t i
        cdef int size = <int>keys.shape[1]
        check_key(self.types, kind, keys.shape[1])
        shards = np.empty(keys.shape[0], np.uint32)
        cdef uint32_t[::1] shard = shards
        if keys.shape[0]:
            with nogil:
                for i in range(keys.shape[0]):
                    shard[i] = shard_of(key_hash(self.k0, self.k1, kind, &keys[i, 0], size), self.shards)
        return shards

    def route(self, int kind, const uint8_t[:, ::1] payloads not None):
        """Pack n payloads of one size into entries, shard after shard, order kept within each.

        Returns (stream, counts): the packed entries of shard 0, then of shard 1, ..., and how many each has.
        """
        cdef Py_ssize_t n = payloads.shape[0], i, at
        cdef int width = <int>payloads.shape[1], size = width + 2, key_offset, key_size
        cdef uint8_t *entry
        if not 0 <= kind <= 255 or self.types.offset[kind] < 0:
            raise EntryError(f"entry type {kind:#04x} has no key", type=kind)
        if size > ENTRY_MAX or self.types.offset[kind] + self.types.size[kind] > width:
            raise EntryError(f"a payload of {width} bytes for type {kind:#04x}", type=kind, size=width)
        key_offset, key_size = self.types.offset[kind], self.types.size[kind]
        stream = np.empty(n * size, np.uint8)
        counts = np.zeros(self.shards, np.int64)
        shards = np.empty(n, np.uint32)
        starts = np.zeros(self.shards, np.int64)
        cdef uint8_t[::1] out = stream
        cdef int64_t[::1] count = counts
        cdef int64_t[::1] start = starts
        cdef uint32_t[::1] shard = shards
        if n == 0:
            return stream, counts
        with nogil:
            for i in range(n):
                shard[i] = shard_of(key_hash(self.k0, self.k1, kind, &payloads[i, key_offset], key_size), self.shards)
                count[shard[i]] += 1
            at = 0
            for i in range(self.shards):
                start[i] = at
                at += count[i]
            for i in range(n):
                entry = &out[start[shard[i]] * size]
                start[shard[i]] += 1
                entry[0] = <uint8_t>size
                entry[1] = <uint8_t>kind
                memcpy(entry + 2, &payloads[i, 0], width)
        return stream, counts


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
