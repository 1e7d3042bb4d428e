"""Which entries of a journal still count, and their move to another: what packing and incarnation need."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from siltstone.index.changes cimport clear, count_entry, find_slot, journal_of
from siltstone.index.layout cimport (
    BUCKET, CHUNK, FINGERPRINTS, PLACE_BITS, TYPE_DELETE, Table, bucket, buckets_of, key_hash, prefetch,
    segment_of, store_release)
from siltstone.index.search cimport Patience
from siltstone.index.types cimport keyed

cdef extern from * nogil:
    """
    #define NO_PLACE UINT64_MAX  /* of an entry that no slot names: a deletion, or one without a key */
    """
    const uint64_t NO_PLACE


cdef inline void prefetch_slots(Table *table, uint64_t hashed) noexcept nogil:
    cdef uint64_t first, second, number = segment_of(table, hashed)
    buckets_of(hashed & FINGERPRINTS, table.segments[number].buckets, &first, &second)
    prefetch(bucket(table, number, table.segments[number].window, first))
    prefetch(bucket(table, number, table.segments[number].window, second))


cdef inline uint64_t *slot_at(Table *table, uint64_t hashed, uint64_t place) noexcept nogil:
    """The slot of a key that names just this place, or NULL: no key is compared."""
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS, first, second
    cdef uint64_t wanted = fingerprint << PLACE_BITS | place
    cdef uint64_t window = table.segments[number].window
    cdef uint64_t *slots
    cdef int which, lane
    buckets_of(fingerprint, table.segments[number].buckets, &first, &second)
    for which in range(2):
        slots = bucket(table, number, window, second if which else first)
        for lane in range(BUCKET):
            if slots[lane] == wanted:
                return &slots[lane]
    return NULL


cdef struct Living:
    uint8_t *out            # room for all entries that are looked at
    uint64_t *places        # room for as many
    int64_t size
    int64_t count
    uint32_t largest


cdef inline void keep(Living *living, const uint8_t *entry, uint64_t place) noexcept nogil:
    memcpy(living.out + living.size, entry, entry[0])
    living.places[living.count] = place
    living.size += entry[0]
    living.count += 1
    if entry[0] > living.largest:
        living.largest = entry[0]


cdef inline void living_run(Table *table, const uint8_t *stream, Py_ssize_t size, uint64_t place, bint keep_deletes,
                            Living *living) noexcept nogil:
    """Copy those of a run of entries from `place` on that count: in `living` they follow each other, in order.

    What a slot names; what has no key; with `keep_deletes` also a deletion of a key that no slot is for, since
    something older may still put it.
    """
    cdef uint64_t hashes[CHUNK]
    cdef const uint8_t *entries[CHUNK]
    cdef bint with_key[CHUNK]
    cdef const uint8_t *key
    cdef int kind, key_size, count, i
    cdef bint deleted
    cdef Patience patience
    cdef Py_ssize_t at = 0
    while at < size:
        count = 0
        while count < CHUNK and at < size:
            entries[count] = stream + at
            with_key[count] = keyed(table, stream + at, &kind, &key, &key_size)
            if with_key[count]:
                hashes[count] = key_hash(table.k0, table.k1, kind, key, key_size)
                prefetch_slots(table, hashes[count])
            at += stream[at]
            count += 1
        for i in range(count):
            if not with_key[i]:
                keep(living, entries[i], NO_PLACE)
            elif slot_at(table, hashes[i], place + <uint64_t>(entries[i] - stream)) != NULL:
                keep(living, entries[i], place + <uint64_t>(entries[i] - stream))
            elif keep_deletes and entries[i][1] == TYPE_DELETE:
                keyed(table, entries[i], &kind, &key, &key_size)
                # Also where what is there is damaged: to keep a deletion is never wrong.
                if find_slot(table, hashes[i], kind, key, key_size, &patience, &deleted) == NULL:
                    keep(living, entries[i], NO_PLACE)


cdef inline int64_t move_run(Table *table, const uint8_t *stream, Py_ssize_t size, const uint64_t *before,
                             const uint64_t *positions, uint64_t place) noexcept nogil:
    """Let the slots of a run of entries name their copies, at positions[i] in the journal of `place`; how many did.

    Only a slot that still names the entry's place `before` is changed: what was put or deleted since stays. All are
    counted among the entries of that journal.
    """
    cdef uint64_t hashes[CHUNK]
    cdef const uint8_t *key
    cdef int kind, key_size, count, i
    cdef Py_ssize_t at = 0
    cdef int64_t done = 0, moved = 0
    cdef bint with_key
    cdef uint64_t *slot
    while at < size:
        count = 0
        while count < CHUNK and at < size:
            with_key = keyed(table, stream + at, &kind, &key, &key_size)
            count_entry(table, place, stream + at, with_key)
            if before[done + count] != NO_PLACE and with_key:
                hashes[count] = key_hash(table.k0, table.k1, kind, key, key_size)
                prefetch_slots(table, hashes[count])
            at += stream[at]
            count += 1
        for i in range(count):
            if before[done + i] == NO_PLACE:
                continue
            slot = slot_at(table, hashes[i], before[done + i])
            if slot != NULL:
                journal_of(table, slot[0]).live -= 1
                journal_of(table, place).live += 1
                store_release(slot, (hashes[i] & FINGERPRINTS) << PLACE_BITS | place | positions[done + i])
                moved += 1
        done += count
    return moved


cdef inline int64_t drop_run(Table *table, const uint8_t *stream, Py_ssize_t size, const uint64_t *before) noexcept nogil:
    """Take the slots of a run of entries out that still name the entry's place `before`; how many did.

    What was put or deleted since stays.
    """
    cdef const uint8_t *key
    cdef int kind, key_size
    cdef Py_ssize_t at = 0
    cdef int64_t i = 0, dropped = 0
    cdef uint64_t hashed
    cdef uint64_t *slot
    while at < size:
        if before[i] != NO_PLACE and keyed(table, stream + at, &kind, &key, &key_size):
            hashed = key_hash(table.k0, table.k1, kind, key, key_size)
            slot = slot_at(table, hashed, before[i])
            if slot != NULL:
                clear(table, slot, hashed, (stream + at)[1] == TYPE_DELETE)
                dropped += 1
        at += stream[at]
        i += 1
    return dropped
