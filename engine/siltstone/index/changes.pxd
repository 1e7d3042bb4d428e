"""Changes of an index by its one writer: puts, deletions, the moves and the growth that make room for them."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from siltstone.index.layout cimport (
    BUCKET, FINGERPRINTS, OFFSET_BITS, OFFSETS, PLACE_BITS, PLACES, TYPE_DELETE, Journal, Segment, Table, Tally,
    begin_change, bucket, buckets_of, end_change, key_hash, prefetch, segment_of, store_release)
from siltstone.index.search cimport PRESENT, Patience, read_entry, same_key
from siltstone.index.types cimport keyed

cdef extern from "sys/mman.h" nogil:
    int madvise(void *where, size_t length, int advice)
    int MADV_DONTNEED
    int MADV_REMOVE

cdef extern from * nogil:
    """
    #ifndef MADV_POPULATE_WRITE /* of Linux 5.14 */
    #define MADV_POPULATE_WRITE 23
    #endif
    #define lowest_bit(bits) __builtin_ctz(bits)
    static inline unsigned free_lanes(const uint64_t *slots) {
        return (slots[0] == 0) | (slots[1] == 0) << 1 | (slots[2] == 0) << 2 | (slots[3] == 0) << 3;
    }
    static inline unsigned popcount(unsigned bits) { /* of 4 bits */
        return (0x4332322132212110u >> (4 * bits)) & 7;
    }
    """
    int MADV_POPULATE_WRITE
    unsigned int lowest_bit(unsigned int bits)
    unsigned int free_lanes(const uint64_t *slots)
    unsigned int popcount(unsigned int bits)

cdef enum:
    SEARCH_NODES = 200
    FILL_PERCENT = 94
    SHRUNK_PERCENT = 75
    GROUP = 16                  # entries whose buckets are fetched at once, and all that they may move: what L1 holds


cdef inline bint is_older(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil:
    """Whether a hash store has the key, so that its deletion must be remembered."""
    return table.older_holds != NULL and table.older_holds(table.older, hashed, kind, key, size)


cdef inline bint has_fingerprint(const uint64_t *one, const uint64_t *two, uint64_t fingerprint) noexcept nogil:
    """Whether a slot of two buckets may hold the fingerprint; an empty slot counts for fingerprint 0."""
    cdef int lane
    cdef bint found = False
    for lane in range(BUCKET):
        found |= one[lane] >> PLACE_BITS == fingerprint
        found |= two[lane] >> PLACE_BITS == fingerprint
    return found


cdef inline Journal *journal_of(Table *table, uint64_t slot) noexcept nogil:
    """The journal that a slot, or a place alone, names."""
    return &table.journals[(slot & PLACES) >> OFFSET_BITS]


cdef inline uint64_t *find_slot(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size,
                                Patience *patience, bint *deleted) noexcept nogil:
    """The writer's own search: the slot of the key, or NULL; `deleted`: what it names is a deletion.

    NULL is also the answer where something there is damaged: patience says so.
    """
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second, life
    cdef uint64_t *slots
    cdef uint8_t entry[256]
    cdef int which, i
    patience.waits, patience.damaged = 0, False
    deleted[0] = False
    buckets_of(fingerprint, segment.buckets, &first, &second)
    for which in range(2):
        slots = bucket(table, number, segment.window, second if which else first)
        for i in range(BUCKET):
            if slots[i] and slots[i] >> PLACE_BITS == fingerprint:
                life = journal_of(table, slots[i]).life
                if (read_entry(table, slots[i] & PLACES, life, entry, patience) == PRESENT
                        and same_key(table, entry, kind, key, size)):
                    deleted[0] = entry[1] == TYPE_DELETE
                    return &slots[i]
                if patience.damaged:
                    return NULL
    return NULL


cdef struct Node:
    uint32_t index
    int parent
    int lane


cdef inline bint make_room(Table *table, uint64_t number, uint64_t window, uint64_t buckets, uint64_t first,
                           uint64_t second, uint64_t **room) noexcept nogil:
    """Free a slot in bucket `first` or `second`, both full, by the shortest chain of moves; False: there is none."""
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


cdef inline void prefetch_moves(Table *table, uint64_t hashed) noexcept nogil:
    """Fetch the buckets that :func:`make_room` looks at first, where a key is going to need a move.

    What it does is wait for memory: asked for early, several buckets come at the same time.
    """
    cdef uint64_t number = segment_of(table, hashed), first, second, one, two
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t *slots
    cdef uint64_t *others
    cdef int lane
    buckets_of(hashed & FINGERPRINTS, segment.buckets, &first, &second)
    slots = bucket(table, number, segment.window, first)
    others = bucket(table, number, segment.window, second)
    if free_lanes(slots) or free_lanes(others):
        return
    for lane in range(BUCKET):
        buckets_of(slots[lane] >> PLACE_BITS, segment.buckets, &one, &two)
        prefetch(bucket(table, number, segment.window, two if one == first else one))
    for lane in range(BUCKET):
        buckets_of(others[lane] >> PLACE_BITS, segment.buckets, &one, &two)
        prefetch(bucket(table, number, segment.window, two if one == second else one))


cdef inline uint64_t *free_slot(uint64_t *one, uint64_t *two) noexcept nogil:
    """A free slot in the emptier of two buckets, or NULL. Without branches that nothing predicts."""
    cdef unsigned int free_one = free_lanes(one), free_two = free_lanes(two)
    cdef bint second = popcount(free_two) > popcount(free_one)
    cdef unsigned int lanes = free_two if second else free_one
    cdef uint64_t *slots = two if second else one
    if lanes == 0:
        return NULL
    return slots + lowest_bit(lanes)


cdef inline bint rebuild(Table *table, uint64_t number, uint64_t buckets) noexcept nogil:
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


cdef inline size_t pages_of(uint64_t buckets) noexcept nogil:
    """Bytes of the pages that so many buckets take."""
    return (buckets * (BUCKET * 8) + 4095) // 4096 * 4096


cdef inline void release(Table *table, uint64_t number, uint64_t window, uint64_t buckets, bint shared) noexcept nogil:
    """Give a window's pages back; a reader that is still in it reads zeros, and looks again."""
    cdef size_t size = pages_of(buckets)
    if madvise(bucket(table, number, window, 0), size, MADV_REMOVE if shared else MADV_DONTNEED):
        memset(bucket(table, number, window, 0), 0, size)  # it must be empty when it is used again


cdef inline bint resize(Table *table, uint64_t number, uint64_t buckets, bint shared) noexcept nogil:
    """Rebuild a segment with so many buckets; False where its slots do not fit."""
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t old = segment.buckets, window = segment.window
    # A hint: a page that is touched, first to be read and then to be written, costs as much as filling it.
    madvise(bucket(table, number, 1 - window, 0), pages_of(buckets), MADV_POPULATE_WRITE)
    if not rebuild(table, number, buckets):
        release(table, number, 1 - window, buckets, shared)
        return False
    begin_change(&segment.sequence)
    segment.buckets = <uint32_t>buckets
    segment.window = <uint32_t>(1 - window)
    end_change(&segment.sequence)
    table.header.bytes += (buckets - old) * (BUCKET * 8)
    release(table, number, window, old, shared)
    return True


cdef inline int grow(Table *table, uint64_t number, bint shared) noexcept nogil:
    """Rebuild a segment a quarter larger; 0, or -1 where its window ends."""
    cdef uint64_t buckets = table.segments[number].buckets
    while True:
        buckets += buckets // 4
        if buckets * (BUCKET * 8) > table.window_bytes:
            return -1
        if resize(table, number, buckets, shared):
            return 0


cdef inline void shrink(Table *table, uint64_t number, uint64_t least, bint shared) noexcept nogil:
    """Rebuild a segment as small as its slots allow, where that is less than half; not below `least` buckets."""
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t wanted = <uint64_t>segment.slots * 100 // (BUCKET * SHRUNK_PERCENT) + 1
    if wanted < least:
        wanted = least
    if 2 * wanted < segment.buckets:
        resize(table, number, wanted, shared)


cdef inline void count_records(Table *table, uint64_t hashed, bint more) noexcept nogil:
    """A key was put that was not here before, or is here no more."""
    if more:
        table.header.records += 1
    else:
        table.header.records -= 1


cdef inline int put(Table *table, uint64_t hashed, uint64_t place, int kind, const uint8_t *key, int size,
                    bint shared, bint deletes, Patience *patience) noexcept nogil:
    """Make `place` the key's; 0, or -1 where the segment cannot grow any more, -2 where what is there is damaged.

    :param deletes: what lies there is a deletion, which is kept since something older may have the key
    """
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second, slot = fingerprint << PLACE_BITS | place
    cdef uint64_t *one
    cdef uint64_t *two
    cdef uint64_t *room
    cdef bint moved, deleted
    buckets_of(fingerprint, segment.buckets, &first, &second)
    one, two = bucket(table, number, segment.window, first), bucket(table, number, segment.window, second)
    if has_fingerprint(one, two, fingerprint):
        room = find_slot(table, hashed, kind, key, size, patience, &deleted)
        if patience.damaged:
            return -2
        if room != NULL:
            journal_of(table, room[0]).live -= 1
            journal_of(table, place).live += 1
            store_release(room, slot)
            if deleted != deletes:
                count_records(table, hashed, deleted)
            return 0
    while True:
        room = free_slot(one, two)
        if room != NULL:
            break
        # Past this fill the search for a move costs more than the memory that it saves.
        if <uint64_t>segment.slots * 100 < <uint64_t>segment.buckets * BUCKET * FILL_PERCENT:
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
    journal_of(table, place).live += 1
    segment.slots += 1
    table.header.slots += 1
    if not deletes:
        count_records(table, hashed, True)
    return 0


cdef inline void clear(Table *table, uint64_t *slot, uint64_t hashed, bint deleted) noexcept nogil:
    """Let a slot name nothing."""
    journal_of(table, slot[0]).live -= 1
    store_release(slot, 0)
    table.segments[segment_of(table, hashed)].slots -= 1
    table.header.slots -= 1
    if not deleted:
        count_records(table, hashed, False)


cdef inline int remove(Table *table, uint64_t hashed, uint64_t place, int kind, const uint8_t *key, int size,
                       bint shared, Patience *patience) noexcept nogil:
    """Do what a deletion at `place` says; 0, or -1 where the segment cannot grow any more, -2 where what is there is
    damaged."""
    cdef bint deleted
    cdef uint64_t *slot
    if is_older(table, hashed, kind, key, size):
        return put(table, hashed, place, kind, key, size, shared, True, patience)
    slot = find_slot(table, hashed, kind, key, size, patience, &deleted)
    if patience.damaged:
        return -2
    if slot != NULL:
        clear(table, slot, hashed, deleted)
    return 0


cdef inline int64_t remember_run(Table *table, const uint8_t *stream, Py_ssize_t size, const uint64_t *positions,
                                 uint64_t place, bint shared, Patience *patience) noexcept nogil:
    """Let slots name those of a run of deletions whose keys have none; how many, or less than 0 as in `apply_run`."""
    cdef const uint8_t *key
    cdef int kind, key_size
    cdef Py_ssize_t at = 0
    cdef int64_t i = 0, remembered = 0
    cdef uint64_t hashed
    cdef bint deleted
    while at < size:
        if keyed(table, stream + at, &kind, &key, &key_size):
            hashed = key_hash(table.k0, table.k1, kind, key, key_size)
            if find_slot(table, hashed, kind, key, key_size, patience, &deleted) == NULL:
                if patience.damaged:
                    return -2
                if put(table, hashed, place | positions[i], kind, key, key_size, shared, True, patience):
                    return -1
                remembered += 1
        at += stream[at]
        i += 1
    return remembered


cdef inline int64_t forget_run(Table *table, const uint8_t *stream, Py_ssize_t size, Patience *patience) noexcept nogil:
    """Let no slots name deletions of the keys of a run of entries; how many did, or -2 as in `apply_run`."""
    cdef const uint8_t *key
    cdef int kind, key_size
    cdef Py_ssize_t at = 0
    cdef int64_t forgotten = 0
    cdef uint64_t hashed
    cdef uint64_t *slot
    cdef bint deleted
    while at < size:
        if keyed(table, stream + at, &kind, &key, &key_size):
            hashed = key_hash(table.k0, table.k1, kind, key, key_size)
            slot = find_slot(table, hashed, kind, key, key_size, patience, &deleted)
            if patience.damaged:
                return -2
            if slot != NULL and deleted:
                clear(table, slot, hashed, True)
                forgotten += 1
        at += stream[at]
    return forgotten


cdef inline void count_entry(Table *table, uint64_t place, const uint8_t *entry, bint with_key) noexcept nogil:
    """Count an entry among those of its journal."""
    cdef Tally *tally = &table.tallies[(place & PLACES) >> OFFSET_BITS]
    tally.entries += 1
    if not with_key:
        tally.keyless += 1
    elif entry[1] == TYPE_DELETE:
        tally.deletions += 1


cdef inline int64_t apply_run(Table *table, const uint8_t *stream, Py_ssize_t size, uint64_t *positions,
                              uint64_t place, bint shared, int64_t *others, int64_t *unknown,
                              Patience *patience) noexcept nogil:
    """Put and delete what a run of entries says; entries applied, or -1 where the table cannot grow, -2 where an
    entry that one of them may replace is damaged.

    Entry i is at positions[i], or without positions at `place` and on. `others` counts entries without a key;
    `unknown` becomes the place of the first of a type that is not known.
    """
    cdef uint64_t hashes[GROUP]
    cdef uint64_t places[GROUP]
    cdef const uint8_t *entries[GROUP]
    cdef const uint8_t *key
    cdef int kind, key_size, count, i, failed
    cdef Py_ssize_t at = 0
    cdef int64_t done = 0
    cdef uint64_t first, second, number
    while at < size:
        count = 0
        while count < GROUP and at < size:
            if keyed(table, stream + at, &kind, &key, &key_size):
                count_entry(table, place, stream + at, True)
                entries[count] = stream + at
                places[count] = (place & ~OFFSETS) | positions[done] if positions != NULL else place + at
                hashes[count] = key_hash(table.k0, table.k1, kind, key, key_size)
                number = segment_of(table, hashes[count])
                buckets_of(hashes[count] & FINGERPRINTS, table.segments[number].buckets, &first, &second)
                prefetch(bucket(table, number, table.segments[number].window, first))
                prefetch(bucket(table, number, table.segments[number].window, second))
                count += 1
            else:
                count_entry(table, place, stream + at, False)
                others[0] += 1
                if not table.known[stream[at + 1]] and unknown[0] < 0:
                    unknown[0] = positions[done] if positions != NULL else (place & OFFSETS) + at
            done += 1
            at += stream[at]
        for i in range(count):
            prefetch_moves(table, hashes[i])
        for i in range(count):
            keyed(table, entries[i], &kind, &key, &key_size)
            if entries[i][1] == TYPE_DELETE:
                failed = remove(table, hashes[i], places[i], kind, key, key_size, shared, patience)
            else:
                failed = put(table, hashes[i], places[i], kind, key, key_size, shared, False, patience)
            if failed:
                return failed
    return done
