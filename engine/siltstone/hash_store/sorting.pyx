"""Brings the entries of journals into the order of a hash store."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from siltstone.errors import EntryError

from siltstone.format.kernels cimport CLUSTER, USED_MAX, bad_entry, is_entry, load_be16
from siltstone.hash_store.page cimport compare_keys
from siltstone.index.layout cimport TYPE_DELETE, Table, key_hash, prefetch, sip_load
from siltstone.index.types cimport KeyTypes, keyed

cdef enum:
    DIGIT = 8
    DIGITS = 64 // DIGIT
    VALUES = 1 << DIGIT
    AHEAD = 12


cdef struct Pair:
    uint64_t hashed
    const uint8_t *entry


cdef struct Kept:
    uint64_t entries
    uint64_t size


cdef Table keys_of(KeyTypes types, const uint8_t[::1] secret) except *:
    """Where keys lie in entries, and the secret of their hashes."""
    cdef Table keys
    if secret.shape[0] != 16:
        raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
    memset(&keys, 0, sizeof(keys))
    keys.key_offset, keys.key_size, keys.known = types.offset, types.size, types.known
    keys.k0, keys.k1 = sip_load(&secret[0]), sip_load(&secret[8])
    return keys


cdef Py_ssize_t count_entries(const uint8_t *stream, Py_ssize_t size, Py_ssize_t *bad) noexcept nogil:
    """How many entries a packed stream has; `bad` becomes the offset of what is none, or -1."""
    cdef Py_ssize_t at = 0, count = 0
    bad[0] = -1
    while at < size:
        if not is_entry(stream, at, size):
            bad[0] = at
            break
        at += stream[at]
        count += 1
    return count


cdef Py_ssize_t pair_up(Table *keys, const uint8_t *stream, Py_ssize_t size, Pair *pairs, uint64_t *count,
                        bint skip_keyless) noexcept nogil:
    """Append a pair for each entry with a key; the offset of the first without one that is not to be skipped, or -1."""
    cdef Py_ssize_t at = 0
    cdef int kind, key_size
    cdef const uint8_t *key
    while at < size:
        if keyed(keys, stream + at, &kind, &key, &key_size):
            pairs[count[0]].hashed = key_hash(keys.k0, keys.k1, kind, key, key_size)
            pairs[count[0]].entry = stream + at
            count[0] += 1
        elif not skip_keyless:
            return at
        at += stream[at]
    return -1


cdef Pair *sort_pairs(Pair *pairs, Pair *others, uint64_t count) noexcept nogil:
    """Sort by hash, equal ones staying in their order; where the result is: one of the two."""
    cdef uint64_t starts[DIGITS][VALUES]
    cdef uint64_t i, sum, here
    cdef int digit, value, shift
    cdef Pair *swap
    memset(starts, 0, sizeof(starts))
    for i in range(count):
        for digit in range(DIGITS):
            starts[digit][(pairs[i].hashed >> (DIGIT * digit)) & (VALUES - 1)] += 1
    for digit in range(DIGITS):
        shift = DIGIT * digit
        # All of one value, as where few entries are sorted or one shard of many: nothing moves.
        if count == 0 or starts[digit][(pairs[0].hashed >> shift) & (VALUES - 1)] == count:
            continue
        sum = 0
        for value in range(VALUES):
            here = starts[digit][value]
            starts[digit][value] = sum
            sum += here
        for i in range(count):
            value = (pairs[i].hashed >> shift) & (VALUES - 1)
            others[starts[digit][value]] = pairs[i]
            starts[digit][value] += 1
        swap = pairs
        pairs = others
        others = swap
    return pairs


cdef uint64_t newest_of(Table *keys, Pair *run, uint64_t count) noexcept nogil:
    """Of entries with one hash, oldest first, leave the newest of each key, in order, at the start; how many."""
    cdef uint64_t kept = 0, i, k
    cdef Pair pair
    # From the newest on, into the end of the run: what is kept takes no more than what was looked at.
    for i in range(count, 0, -1):
        pair = run[i - 1]
        for k in range(kept):
            if compare_keys(keys, pair.entry, run[count - 1 - k].entry) == 0:
                break
        else:
            kept += 1
            run[count - kept] = pair
    for i in range(kept):
        pair = run[count - kept + i]
        k = i
        while k and compare_keys(keys, pair.entry, run[k - 1].entry) < 0:
            run[k] = run[k - 1]
            k -= 1
        run[k] = pair
    return kept


cdef Kept leave_newest(Table *keys, Pair *pairs, uint64_t count, bint drop_deletes) noexcept nogil:
    """Leave the newest entry of each key at the start of sorted pairs; how many are left, and their bytes."""
    cdef Kept kept
    cdef uint64_t begin = 0, end, left, i
    kept.entries = kept.size = 0
    while begin < count:
        end = begin + 1
        while end < count and pairs[end].hashed == pairs[begin].hashed:
            end += 1
        left = newest_of(keys, pairs + begin, end - begin) if end - begin > 1 else 1
        for i in range(begin, begin + left):
            if begin + AHEAD < count:
                prefetch(pairs[begin + AHEAD].entry)
            if drop_deletes and pairs[i].entry[1] == TYPE_DELETE:
                continue
            kept.size += pairs[i].entry[0]
            pairs[kept.entries] = pairs[i]
            kept.entries += 1
        begin = end
    return kept


cdef void gather(const Pair *pairs, uint64_t count, uint8_t *out) noexcept nogil:
    cdef uint64_t i
    cdef uint8_t size
    for i in range(count):
        if i + AHEAD < count:
            prefetch(pairs[i + AHEAD].entry)
            prefetch(pairs[i + AHEAD].entry + 49)
        size = pairs[i].entry[0]
        memcpy(out, pairs[i].entry, size)
        out += size


cdef object without_key(const uint8_t[::1] stream, Py_ssize_t at):
    """The error for an entry that has no key."""
    return EntryError(f"the entry at offset {at}, of type {stream[at + 1]:#04x}, has no key", offset=at,
                      type=stream[at + 1], size=stream[at])


def sort_entries(KeyTypes types not None, const uint8_t[::1] secret not None, streams, *, bint drop_deletes=False,
                 bint skip_keyless=False):
    """The newest entry of each key, packed, in the order that a hash store has: (n,) uint8, the caller's own.

    Of equal keys the one further behind counts, tombstones like any other. Takes 32 bytes an entry while it runs,
    besides the result. EntryError, naming the offset in its stream, for what is no entry or has no key.

    :param types: where keys lie in entries
    :param secret: of their hashes [16 bytes]
    :param streams: buffers of packed whole entries, the oldest first; nobody may change them meanwhile
    :param drop_deletes: leave tombstones out, where nothing older than these entries is kept anywhere
    :param skip_keyless: leave entries without a key out, where they are kept elsewhere
    """
    cdef Table keys
    cdef const uint8_t[::1] stream
    cdef Py_ssize_t total = 0, bad = -1
    cdef uint64_t count = 0
    cdef Pair *pairs = NULL
    cdef Pair *sorted_pairs
    cdef Kept kept
    cdef uint8_t[::1] out
    keys = keys_of(types, secret)
    views = [memoryview(one).cast("B") for one in streams if len(memoryview(one).cast("B"))]
    for view in views:
        stream = view
        with nogil:
            total += count_entries(&stream[0], stream.shape[0], &bad)
        if bad >= 0:
            raise bad_entry(stream, bad)
    pairs = <Pair *>malloc(2 * (total + 1) * sizeof(Pair))
    if pairs == NULL:
        raise MemoryError(f"no memory to sort {total} entries")
    try:
        for view in views:
            stream = view
            with nogil:
                bad = pair_up(&keys, &stream[0], stream.shape[0], pairs, &count, skip_keyless)
            if bad >= 0:
                raise without_key(stream, bad)
        with nogil:
            sorted_pairs = sort_pairs(pairs, pairs + total, count)
            kept = leave_newest(&keys, sorted_pairs, count, drop_deletes)
        result = np.empty(kept.size, np.uint8)
        if kept.size:
            out = result
            with nogil:
                gather(sorted_pairs, kept.entries, &out[0])
        return result
    finally:
        free(pairs)


def hashes_of(KeyTypes types not None, const uint8_t[::1] secret not None, const uint8_t[::1] stream not None):
    """The hash of each packed entry's key, (n,) uint64. EntryError as :func:`sort_entries`."""
    cdef Table keys = keys_of(types, secret)
    cdef Py_ssize_t total = 0, bad = -1, at = 0, i = 0
    cdef int kind, key_size
    cdef const uint8_t *key
    cdef uint64_t[::1] found
    if stream.shape[0]:
        with nogil:
            total = count_entries(&stream[0], stream.shape[0], &bad)
    if bad >= 0:
        raise bad_entry(stream, bad)
    hashes = np.empty(total, np.uint64)
    found = hashes
    while i < total:
        if not keyed(&keys, &stream[at], &kind, &key, &key_size):
            raise without_key(stream, at)
        found[i] = key_hash(keys.k0, keys.k1, kind, key, key_size)
        at += stream[at]
        i += 1
    return hashes


cdef class Sorted:
    """Entries in the order of a hash store, taken in slices.

    :param types: where keys lie in entries
    :param secret: of their hashes [16 bytes]
    :param stream: what `sort_entries` returned; kept, nobody may change it
    """

    cdef Table keys
    cdef KeyTypes types
    cdef object stream
    cdef const uint8_t[::1] bytes_view
    cdef Py_ssize_t at

    def __init__(self, KeyTypes types not None, const uint8_t[::1] secret not None, stream):
        self.keys = keys_of(types, secret)
        self.types, self.stream, self.bytes_view, self.at = types, stream, stream, 0

    cdef uint64_t hash_at(self, Py_ssize_t at) noexcept nogil:
        cdef int kind, key_size
        cdef const uint8_t *key
        if not keyed(&self.keys, &self.bytes_view[at], &kind, &key, &key_size):
            return 0
        return key_hash(self.keys.k0, self.keys.k1, kind, key, key_size)

    @property
    def place(self):
        """The hash from which on nothing was taken yet; None where all is."""
        return None if self.at == self.bytes_view.shape[0] else self.hash_at(self.at)

    @property
    def left(self):
        """Bytes of the entries that were not taken yet."""
        return self.bytes_view.shape[0] - self.at

    def slice(self, uint64_t entries, uint64_t entry_bytes):
        """Yield the next packed entries, at most so many of so many bytes, but for further ones of the last hash."""
        cdef Py_ssize_t begin = self.at, before = self.at, at = self.at, size = self.bytes_view.shape[0]
        with nogil:
            while at < size and ((entries and self.bytes_view[at] <= entry_bytes) or (
                    at > begin and self.hash_at(at) == self.hash_at(before))):
                entries -= entries > 0
                entry_bytes -= self.bytes_view[at] if self.bytes_view[at] < entry_bytes else entry_bytes
                before = at
                at += self.bytes_view[at]
        self.at = at
        if at > begin:
            yield self.stream[begin:at]


def cluster_entries(const uint8_t[::1] clusters not None, Py_ssize_t last_used):
    """The packed entries of whole, verified clusters of a sealed journal, without what closes them: (n,) uint8.

    :param last_used: of the last cluster only so many bytes of entries count
    """
    cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, i, size = 0, used
    cdef uint8_t *out
    if clusters.shape[0] % CLUSTER:
        raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
    sizes = np.zeros(count, np.uint32)
    cdef uint32_t[::1] sizes_view = sizes
    for i in range(count):
        used = load_be16(&clusters[i * CLUSTER + 4072])
        if i == count - 1 and last_used < used:
            used = last_used
        if not 0 <= used <= USED_MAX:
            raise ValueError(f"cluster {i} says {used} bytes of entries")
        sizes_view[i] = <uint32_t>used
        size += used
    packed = np.empty(size, np.uint8)
    cdef uint8_t[::1] packed_view = packed
    if size:
        out = &packed_view[0]
        with nogil:
            for i in range(count):
                memcpy(out, &clusters[i * CLUSTER], sizes_view[i])
                out += sizes_view[i]
    return packed
