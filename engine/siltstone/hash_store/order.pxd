"""Whether a record page holds what its place in the order of a hash store allows; for a scrubber and a merge."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from siltstone.hash_store.page cimport COUNT_AT, LAST_TAG, compare_keys, tag_of
from siltstone.hash_store.search cimport Store
from siltstone.format.kernels cimport load_be16
from siltstone.index.layout cimport key_hash
from siltstone.index.types cimport keyed


cdef inline bint hash_of(Store *store, const uint8_t *entry, uint64_t *hashed) noexcept nogil:
    """The hash of an entry's key; False where it has none."""
    cdef int kind, size
    cdef const uint8_t *key
    if not keyed(&store.keys, entry, &kind, &key, &size):
        return False
    hashed[0] = key_hash(store.keys.k0, store.keys.k1, kind, key, size)
    return True


cdef inline bint in_order(Store *store, uint32_t page, const uint8_t *start) noexcept nogil:
    """Whether the entries of a verified page have keys, ascend, bear their tags, and begin and end at their fences."""
    cdef uint32_t count = load_be16(start + COUNT_AT), i, at = 0, before = 0
    cdef uint64_t hashed, last = 0
    for i in range(count):
        if not hash_of(store, start + at, &hashed) or start[LAST_TAG - i] != tag_of(hashed):
            return False
        if i == 0:
            if hashed != store.fences[page]:
                return False
        elif hashed < last or (hashed == last and compare_keys(&store.keys, start + before, start + at) >= 0):
            return False
        last, before = hashed, at
        at += start[at]
    return page + 1 >= store.pages or last <= store.fences[page + 1]
