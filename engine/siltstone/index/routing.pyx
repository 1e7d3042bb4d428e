"""The choice of a shard from a key."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from siltstone.errors import EntryError

from siltstone.index.layout cimport ENTRY_MAX, key_hash, shard_of, sip_load
from siltstone.index.types cimport KeyTypes, check_key

cdef extern from "index/siphash.h" nogil:
    uint64_t siphash24(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size)


def siphash_2_4(const uint8_t[::1] data, const uint8_t[::1] key):
    """SipHash-2-4, so that a test can hold the rounds against the paper's vectors."""
    return siphash24(sip_load(&key[0]), sip_load(&key[8]), &data[0] if data.shape[0] else NULL, data.shape[0])


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

    def entry(self, int kind, bytes payload not None, bint has_key):
        """One payload packed into an entry, and its shard: (shard, entry).

        That of its key; without one all entries of such a type lie in one shard, so that their order is kept.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(payload)
        cdef uint32_t shard = kind % self.shards
        cdef bytes entry
        cdef uint8_t *at
        if not 0 <= kind <= 255 or (has_key and self.types.offset[kind] < 0):
            raise EntryError(f"entry type {kind:#04x} has no key", type=kind)
        if size + 2 > ENTRY_MAX or (has_key and self.types.offset[kind] + self.types.size[kind] > size):
            raise EntryError(f"a payload of {size} bytes for type {kind:#04x}", type=kind, size=size)
        if has_key:
            shard = shard_of(
                key_hash(self.k0, self.k1, kind, data + self.types.offset[kind], self.types.size[kind]), self.shards)
        entry = PyBytes_FromStringAndSize(NULL, size + 2)
        at = <uint8_t *>PyBytes_AS_STRING(entry)
        at[0], at[1] = <uint8_t>(size + 2), <uint8_t>kind
        memcpy(at + 2, data, size)
        return shard, np.frombuffer(entry, np.uint8)

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
