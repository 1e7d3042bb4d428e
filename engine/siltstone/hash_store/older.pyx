"""The hash stores of a shard at one time, for lookups that the index has no answer for."""

from typing import NamedTuple

from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from siltstone.errors import DamageError

from siltstone.hash_store.search cimport KEY_ABSENT, PAGE_DAMAGED, is_tombstone
from siltstone.hash_store.view cimport HashStoreView
from siltstone.index.guard cimport guarded, unreadable
from siltstone.hash_store.view import DELETED, FOUND, NOT_FOUND
from siltstone.index.layout cimport OLDER_MAX, PARTS_MAX, key_hash
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.types cimport check_key, keyed


class Listed(NamedTuple):
    """How an index lists a part of a hash store: newest stores first, the parts of one in the order of their hashes.

    :param extent: id
    :param generation: of its life
    :param offset: in the volume [bytes]
    :param length: [bytes]
    :param store: number of the hash store that it is a part of, without gaps; 0 is the newest
    :param first: entries with a smaller hash do not count
    :param entries: how many count
    :param tombstones: among them
    """

    extent: int
    generation: int
    offset: int
    length: int
    store: int
    first: int
    entries: int
    tombstones: int


cdef bint holds(void *older, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil:
    """Whether a key is in the stores and not deleted there; where a page is damaged, it may be."""
    cdef uint8_t entry[256]
    cdef uint32_t part, damaged
    cdef Held held = find_older(<Older *>older, hashed, kind, key, size, entry, &part, &damaged)
    return held == PAGE_DAMAGED or (held == KEY_PRESENT and not is_tombstone(entry))


cdef struct Holding:
    Older *older
    const uint8_t *stream
    Py_ssize_t size
    uint8_t *flags


cdef void holding_guarded(void *argument) noexcept nogil:
    cdef Holding *query = <Holding *>argument
    cdef const uint8_t *key
    cdef int kind, size
    cdef Py_ssize_t at = 0, i = 0
    cdef uint64_t hashed
    while at < query.size:
        query.flags[i] = 0
        if keyed(&query.older.parts[0].keys, query.stream + at, &kind, &key, &size):
            hashed = key_hash(query.older.parts[0].keys.k0, query.older.parts[0].keys.k1, kind, key, size)
            query.flags[i] = holds(query.older, hashed, kind, key, size)
        at += query.stream[at]
        i += 1


cdef struct Asking:
    Older *older
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    Py_ssize_t done
    uint8_t *states
    uint32_t part
    uint32_t damaged


cdef void ask_guarded(void *argument) noexcept nogil:
    cdef Asking *query = <Asking *>argument
    cdef const uint8_t *key
    cdef uint8_t entry[256]
    cdef uint64_t hashed
    cdef Held held
    while query.done < query.count:
        key = query.keys + query.done * query.key_size
        hashed = key_hash(query.older.parts[0].keys.k0, query.older.parts[0].keys.k1, query.kind, key, query.key_size)
        held = find_older(query.older, hashed, query.kind, key, query.key_size, entry, &query.part, &query.damaged)
        if held == PAGE_DAMAGED:
            return
        query.states[query.done] = 0 if held == KEY_ABSENT else 2 if is_tombstone(entry) else 1
        query.done += 1


cdef class OlderStores:
    """Hash stores, newest first, as they stay; for one index. ValueError where their parts do not go together.

    :param parts: of each part its view and what an index lists of it, in the order of :class:`Listed`; kept
    """

    def __init__(self, parts):
        cdef HashStoreView view
        cdef uint64_t first
        cdef uint32_t i = 0
        parts = tuple(parts)
        self.parts = tuple([each for each, _listed in parts])
        self.listing = tuple([Listed(*listed) for _view, listed in parts])
        if len(parts) > PARTS_MAX:
            raise ValueError(f"{len(parts)} parts of hash stores; at most {PARTS_MAX}")
        self.older.version = self.older.count = self.older.begins[0] = 0
        for view, listed in zip(self.parts, self.listing):
            first = listed.first
            if i and listed.store == self.older.count - 1:
                if first <= self.older.firsts[i - 1]:
                    raise ValueError(f"hash store {listed.store}: its parts are not in the order of their hashes")
            else:
                if listed.store != self.older.count or listed.store >= OLDER_MAX:
                    raise ValueError(f"hash store {listed.store} behind {self.older.count}; at most {OLDER_MAX}")
                self.older.begins[self.older.count] = i
                self.older.count += 1
            self.older.firsts[i] = first
            self.older.parts[i] = &view.store
            i += 1
        self.older.begins[self.older.count] = i

    @property
    def version(self):
        """Of the list that an index has of them; 0: none has."""
        return self.older.version

    @property
    def records(self):
        """Puts less tombstones: how many keys there are, those that several of them put counted more than once."""
        count = 0
        for which in range(<int>self.older.count - 1, -1, -1):
            parts = self.listing[self.older.begins[which]:self.older.begins[which + 1]]
            tombstones = sum([part.tombstones for part in parts])
            # Where the oldest stores went, tombstones of what was in them are left: they hide nothing.
            count = max(0, count - tombstones) + sum([part.entries for part in parts]) - tombstones
        return count

    def states_of(self, int kind, const uint8_t[:, ::1] keys not None):
        """What they say of (n, key size) keys of one type: (n,) uint8 of NOT_FOUND, FOUND or DELETED."""
        cdef Asking query
        cdef Py_ssize_t n = keys.shape[0]
        cdef int failed
        states = np.zeros(n, np.uint8)
        cdef uint8_t[::1] found = states
        if n == 0 or self.older.count == 0:
            return states
        check_key((<HashStoreView>self.parts[0]).types, kind, keys.shape[1])
        query.older, query.kind, query.keys, query.key_size = &self.older, kind, &keys[0, 0], <int>keys.shape[1]
        query.count, query.done, query.states = n, 0, &found[0]
        with nogil:
            failed = guarded(ask_guarded, &query)
        if failed:
            raise unreadable("looking up keys in hash stores")
        if query.done < n:
            raise self.damage(query.part, query.damaged)
        return states

    def holding(self, const uint8_t[::1] stream not None, Py_ssize_t count):
        """Of which of `count` packed entries the keys are here, as (count,) bool; True too where a page is damaged."""
        cdef Holding query
        cdef int failed
        answers = np.zeros(count, np.uint8)
        cdef uint8_t[::1] flags = answers
        if count and self.older.count:
            query.older, query.stream, query.size, query.flags = &self.older, &stream[0], stream.shape[0], &flags[0]
            with nogil:
                failed = guarded(holding_guarded, &query)
            if failed:
                raise unreadable("looking up deleted keys")
        return answers.view(bool)

    def attach(self, MappedIndex index not None, uint64_t version):
        """Let lookups in an index go on in these; its list of hash stores has this version."""
        if self.older.version:
            raise ValueError("another index has these hash stores already")
        self.older.version = version
        index.take_older(self, &self.older, holds)

    def damage(self, uint32_t part, uint32_t cluster):
        """The error for a page of one of the parts that is not what was written."""
        if part >= len(self.parts):
            # Of a list that was longer.
            return DamageError("a hash store that was merged meanwhile: damaged; it was durable", journal=None,
                               cluster=cluster, offset=None)
        return (<HashStoreView>self.parts[part]).damage(cluster, "damaged; it was durable")
