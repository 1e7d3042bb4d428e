"""Looking for one key in an index, beside whoever writes it, be it another process.

Nothing that lies in the memory of the index is believed: what does not lie inside the windows and the maps of
this process counts as caught in the middle of a change, and is looked at again until patience ends.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from siltstone.index.layout cimport (
    BUCKET, CLUSTER, FINGERPRINTS, OFFSET_BITS, OFFSETS, PLACE_BITS, PLACES, SLOT_CLUSTERS, TAIL_IN_LOG,
    TAIL_IN_MEMORY, TYPE_DELETE, Journal, Map, Seals, Segment, Table, bucket, buckets_of, load_acquire, load_byte,
    load_half, load_relaxed, seals_check, seals_known, segment_of, unchanged, wait_a_moment)

ctypedef enum Found:
    ABSENT = 0
    PRESENT = 1
    RETRY = 2       # the journal that a slot names is going away
    UNMAPPED = 3    # it is there, and this process has no map of it
    STUCK = 4       # its writer does not come to the end of a change
    DAMAGED = 5     # the cluster that a slot names is not as it was sealed
    WAITS = 6       # the slots of the segment are still on the medium

cdef struct Patience:
    uint32_t waits
    uint32_t journal    # its number, where UNMAPPED or DAMAGED is the answer; where WAITS is, the segment's
    uint32_t cluster    # of its extent, where DAMAGED is
    bint damaged        # DAMAGED was met


cdef inline bint names(Table *table, const uint64_t *at, uint64_t slot, uint64_t *life) noexcept nogil:
    """Whether the slot at `at` still has its content, once `life` is the life of the journal that it names.

    A number is given to another journal only when no slot names it: so the slot means the journal of this life,
    and not one of an earlier life, at whose place the next one may not have written yet.
    """
    life[0] = load_acquire(&table.journals[(slot & PLACES) >> OFFSET_BITS].life)
    return load_relaxed(at) == slot


cdef inline Found copy_entry(Table *table, Journal *journal, Map *seen_at, uint64_t life, uint64_t offset,
                             uint8_t *out, Patience *patience) noexcept nogil:
    """Copy an entry as it is now to `out`; whoever calls sees to it that the journal did not change meanwhile."""
    cdef uint64_t inside = offset & (CLUSTER - 1), length
    cdef uint32_t index = <uint32_t>(offset >> 12) - SLOT_CLUSTERS
    cdef Seals *seals
    cdef uint32_t kind = load_half(&journal.tail_kind), size, room = <uint32_t>(CLUSTER - inside)
    cdef const uint8_t *at
    if life == 0 or load_relaxed(&journal.life) != life:
        return RETRY
    if load_acquire(&seen_at.life) != life:
        return UNMAPPED
    at, length, seals = seen_at.base, seen_at.length, seen_at.seals
    # Another thread may map it anew: base and length of two maps would not go together.
    if not unchanged(&seen_at.life, life):
        return UNMAPPED
    if kind != TAIL_IN_LOG and (offset >> 12) == <uint64_t>load_half(&journal.tail_index) + SLOT_CLUSTERS:
        if kind == TAIL_IN_MEMORY:
            at, offset, length, seals = table.tail, inside, CLUSTER, NULL
        else:
            offset = (load_relaxed(&journal.tail_slot) & 1) * CLUSTER + inside
    if offset >= length:
        return RETRY
    if length - offset < room:
        room = <uint32_t>(length - offset)
    if seals != NULL and not seals_known(seals, offset >> 12):
        # A part of a cluster at the end of an extent is none.
        if length - (offset - inside) < CLUSTER or not seals_check(seals, at, offset >> 12, index):
            patience.cluster, patience.damaged = <uint32_t>(offset >> 12), True
            return DAMAGED
    size = load_byte(at + offset)
    if size < 2 or size > room:
        out[0], out[1] = 2, 0
    else:
        memcpy(out, at + offset, size)
        # It may have changed since; what is in `out` has the size that was checked.
        out[0] = <uint8_t>size
    return PRESENT


cdef inline Found read_entry(Table *table, uint64_t place, uint64_t life, uint8_t *out, Patience *patience) noexcept nogil:
    """PRESENT with the entry at `place` in `out` (256 bytes) as it stood at one moment, or why there is none.

    `life` is that of the journal that the place means.
    """
    cdef Journal *journal = &table.journals[place >> OFFSET_BITS]
    cdef uint64_t seen
    cdef Found found
    while True:
        seen = load_acquire(&journal.sequence)
        if not seen & 1:
            found = copy_entry(table, journal, &table.maps[place >> OFFSET_BITS], life, place & OFFSETS, out,
                               patience)
            if not unchanged(&journal.sequence, seen):
                patience.damaged = False
            else:
                patience.journal = <uint32_t>(place >> OFFSET_BITS)
                return found
        if wait_a_moment(&patience.waits):
            return STUCK


cdef inline bint same_key(Table *table, const uint8_t *entry, int kind, const uint8_t *key, int size) noexcept nogil:
    """Whether an entry puts this key, or deletes it."""
    if entry[1] == TYPE_DELETE:
        return entry[0] == 3 + size and entry[2] == kind and memcmp(entry + 3, key, size) == 0
    return (entry[1] == kind and entry[0] >= 2 + table.key_offset[kind] + size
            and memcmp(entry + 2 + table.key_offset[kind], key, size) == 0)


cdef inline bint fits(Table *table, uint64_t buckets) noexcept nogil:
    """Whether a segment of so many buckets lies inside its window."""
    return 0 < buckets and buckets * (BUCKET * 8) <= table.window_bytes


cdef inline Found lookup(Table *table, uint64_t hashed, int kind, const uint8_t *key, int size, uint8_t *out,
                         Patience *patience) noexcept nogil:
    """Any reader's search: PRESENT with the entry in `out` (256 bytes), ABSENT, or why neither is known.

    The entry that is PRESENT may be a deletion, where deletions are remembered.
    """
    cdef uint64_t number = segment_of(table, hashed), fingerprint = hashed & FINGERPRINTS
    cdef Segment *segment = &table.segments[number]
    cdef uint64_t first, second, seen, buckets, window, slot, life
    cdef uint64_t *slots
    cdef int which, i
    cdef bint again
    cdef Found found
    while True:
        seen = load_acquire(&segment.sequence)
        buckets, window = load_half(&segment.buckets), load_half(&segment.window) & 1
        if not seen & 1 and fits(table, buckets):
            buckets_of(fingerprint, buckets, &first, &second)
            again = False
            for which in range(2):
                slots = bucket(table, number, window, second if which else first)
                for i in range(BUCKET):
                    slot = load_relaxed(&slots[i])
                    if slot and slot >> PLACE_BITS == fingerprint:
                        found = RETRY
                        if names(table, &slots[i], slot, &life):
                            found = read_entry(table, slot & PLACES, life, out, patience)
                        if found == RETRY:
                            again = True
                        elif found != PRESENT:
                            return found
                        elif same_key(table, out, kind, key, size):
                            return PRESENT
            if not again and unchanged(&segment.sequence, seen):
                return ABSENT
        if seen & 1 and load_half(&segment.waits):
            patience.journal = <uint32_t>number
            return WAITS
        if wait_a_moment(&patience.waits):
            return STUCK
