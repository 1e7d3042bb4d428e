"""The shape of an index, for those who provide its memory."""

JOURNALS_MAX = JOURNALS
HASH_STORES_MAX = OLDER_MAX
HASH_STORE_PARTS_MAX = PARTS_MAX
JOURNAL_BYTES_MAX = 1 << OFFSET_BITS
#: bytes of a slot, for formulas
SLOT_BYTES = 8


def layout_bytes(Py_ssize_t segments, Py_ssize_t window_bytes):
    """Bytes of address space that an index of `segments` segments takes; hardly any are touched at first."""
    return windows_at(segments) + segments * 2 * window_bytes


def forsake(memory, Py_ssize_t segments):
    """Leave an index whose writer is gone for ever in the middle of changes, so that no lookup ends in it.

    :param memory: the index, writable; of so many segments
    """
    cdef uint8_t[::1] writable = memory
    cdef uint8_t *base = &writable[0]
    cdef Journal *journals = <Journal *>(base + JOURNALS_AT)
    cdef Segment *all_segments = <Segment *>(base + SEGMENTS_AT)
    cdef OlderList *listed = <OlderList *>(base + OLDER_AT)
    cdef Py_ssize_t i
    for i in range(segments):
        if not all_segments[i].sequence & 1:
            begin_change(&all_segments[i].sequence)
    for i in range(JOURNALS):
        if not journals[i].sequence & 1:
            begin_change(&journals[i].sequence)
    if not listed.sequence & 1:
        begin_change(&listed.sequence)
