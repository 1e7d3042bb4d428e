"""The shape of an index, for those who provide its memory."""

JOURNALS_MAX = JOURNALS
HASH_STORES_MAX = OLDER_MAX
JOURNAL_BYTES_MAX = 1 << OFFSET_BITS
#: bytes of a slot, for formulas
SLOT_BYTES = 8


def layout_bytes(Py_ssize_t segments, Py_ssize_t window_bytes):
    """Bytes of address space that an index of `segments` segments takes; hardly any are touched at first."""
    return windows_at(segments) + segments * 2 * window_bytes
