"""Looking for one key in an index, beside whoever writes it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from siltstone.index.layout cimport (
    BUCKET, CLUSTER, FINGERPRINTS, OFFSET_BITS, OFFSETS, PLACE_BITS, PLACES, SLOT_CLUSTERS, TAIL_IN_LOG, TAIL_IN_MEMORY,
    Journal, Segment, Table, bucket, buckets_of, load_acquire, load_relaxed, segment_of, unchanged)

ctypedef enum Found:
    ABSENT = 0
    PRESENT = 1
    RETRY = 2


cdef inline Found read_entry(Table *table, uint64_t place, uint8_t *out) noexcept nogil:
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


cdef inline Found lookup(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out) noexcept nogil:
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
