"""Pages of a hash store: the seal of each, the entries and tags of a record page.

Nothing here reads outside the page that it is given, whatever its bytes.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from siltstone.format.kernels cimport is_entry, load_be16, load_be32, load_be64, xxh3_long
from siltstone.index.layout cimport TYPE_DELETE, Table, load_byte, sip_load
from siltstone.index.types cimport keyed

cdef extern from * nogil:
    """
    #define leading_zeros(word) __builtin_clzll(word)
    """
    int leading_zeros(uint64_t word)

cdef enum:
    PAGE = 4096
    ROOM = 4064             # for what a page holds; the seal is behind it
    LAST_TAG = 4063         # of entry 0; the tag of entry i is i bytes before it
    GENERATION_AT = 4064
    INDEX_AT = 4068
    USED_AT = 4072
    COUNT_AT = 4074
    PART_AT = 4076
    SIZE_AT = 4080
    SUM_AT = 4088

    # What a page is part of.
    HEADER_PART = 0
    RECORD_PART = 1
    FILTER_PART = 2
    FENCE_PART = 3

    FIRST_RECORD_PAGE = 1
    FENCES = 508            # of a fence page


cdef inline bint is_sealed(const uint8_t *page, uint32_t index, uint32_t part, const uint8_t *secret) noexcept nogil:
    """Whether a page is whole, and cluster `index` of the extent whose seals have this secret."""
    return (load_be32(page + INDEX_AT) == index and load_be32(page + PART_AT) == part
            and load_be64(page + SUM_AT) == xxh3_long(page, SUM_AT, secret))


cdef inline bint holds_records(const uint8_t *page) noexcept nogil:
    """Whether entries fill the bytes that the seal says, as many and as large as it says, beside their tags."""
    cdef uint32_t used = load_be16(page + USED_AT), count = load_be16(page + COUNT_AT), size = load_be16(page + SIZE_AT)
    cdef uint32_t at = 0, met = 0
    if count == 0 or used + count > ROOM:
        return False
    while at < used:
        if not is_entry(page, at, used) or (size and page[at] != size):
            return False
        at += page[at]
        met += 1
    return met == count


cdef inline uint8_t tag_of(uint64_t hashed) noexcept nogil:
    """The byte of a hash that its page does not depend on."""
    return <uint8_t>hashed


cdef inline int next_with_tag(const uint8_t *page, uint64_t hashed, int start) noexcept nogil:
    """The first entry from number `start` on that has the tag of a hash, or -1. Reads eight tags at once."""
    cdef int count = load_be16(page + COUNT_AT), word = start >> 3, found
    cdef uint64_t sevens = <uint64_t>0x7F7F7F7F7F7F7F7F
    cdef uint64_t pattern = <uint64_t>0x0101010101010101 * tag_of(hashed)
    # The tags run downwards: entry 8 x word has the highest byte of its word.
    cdef uint64_t wanted = ~<uint64_t>0 >> (8 * (start & 7)), other, equal
    if count > ROOM:
        count = ROOM
    while 8 * word < count:
        other = sip_load(page + LAST_TAG - 7 - 8 * word) ^ pattern
        # The high bit of each byte that is zero in `other`; no carry leaves its byte.
        equal = ~(((other & sevens) + sevens) | other | sevens) & wanted
        if equal:
            found = 8 * word + (leading_zeros(equal) >> 3)
            return found if found < count else -1
        wanted = ~<uint64_t>0
        word += 1
    return -1


cdef inline int entry_at(const uint8_t *page, int number) noexcept nogil:
    """Where in the page an entry starts, by multiplication or walking; -1 where there are not so many."""
    cdef int at = 0, size = load_be16(page + SIZE_AT), i
    if size:
        at = number * size
    else:
        for i in range(number):
            at += load_byte(page + at)
            if at >= ROOM:
                return -1
    return at if at < ROOM else -1


cdef inline bint copy_entry(const uint8_t *page, int number, uint8_t *out) noexcept nogil:
    """Copy an entry to `out` (256 bytes); False where the page changed since it was verified and has no such entry."""
    cdef int at = entry_at(page, number), size
    if at < 0:
        return False
    size = load_byte(page + at)
    if size < 2 or size > ROOM - at:
        return False
    memcpy(out, page + at, size)
    out[0] = <uint8_t>size
    return True


cdef inline bint has_key(const Table *table, const uint8_t *entry, int kind, const uint8_t *key,
                         int size) noexcept nogil:
    """Whether an entry puts or deletes this key."""
    cdef int its_kind, its_size
    cdef const uint8_t *its_key
    return (keyed(<Table *>table, entry, &its_kind, &its_key, &its_size) and its_kind == kind and its_size == size
            and memcmp(its_key, key, size) == 0)


cdef inline int compare_keys(Table *table, const uint8_t *a, const uint8_t *b) noexcept nogil:
    """The order of two entries with keys whose hashes are equal: by type, then by the bytes of the key; 0: one key."""
    cdef int kind_a, kind_b, size_a, size_b
    cdef const uint8_t *key_a
    cdef const uint8_t *key_b
    if not keyed(table, a, &kind_a, &key_a, &size_a) or not keyed(table, b, &kind_b, &key_b, &size_b):
        return 0
    if kind_a != kind_b:
        return -1 if kind_a < kind_b else 1
    return memcmp(key_a, key_b, size_a)
