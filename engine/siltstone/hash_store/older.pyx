"""The hash stores of a shard at one time, for lookups that the index has no answer for."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from siltstone.hash_store.search cimport KEY_ABSENT, PAGE_DAMAGED, is_tombstone
from siltstone.hash_store.view cimport HashStoreView
from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport OLDER_MAX, key_hash
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.types cimport keyed


cdef bint holds(void *older, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil:
    """Whether a key is in the stores and not deleted there; where a page is damaged, it may be."""
    cdef uint8_t entry[256]
    cdef uint32_t which, damaged
    cdef Held held = find_older(<Older *>older, hashed, kind, key, size, entry, &which, &damaged)
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
        if keyed(&query.older.stores[0].keys, query.stream + at, &kind, &key, &size):
            hashed = key_hash(query.older.stores[0].keys.k0, query.older.stores[0].keys.k1, kind, key, size)
            query.flags[i] = holds(query.older, hashed, kind, key, size)
        at += query.stream[at]
        i += 1


cdef class OlderStores:
    """Hash stores, newest first, as they stay; for one index.

    :param views: of one shard; kept
    """

    def __init__(self, views):
        cdef HashStoreView view
        self.views = tuple(views)
        if len(self.views) > OLDER_MAX:
            raise ValueError(f"{len(self.views)} hash stores; at most {OLDER_MAX}")
        self.older.version = 0
        self.older.count = <uint32_t>len(self.views)
        for i, view in enumerate(self.views):
            self.older.stores[i] = &view.store

    @property
    def version(self):
        """Of the list that an index has of them; 0: none has."""
        return self.older.version

    @property
    def records(self):
        """Puts less tombstones: how many keys there are, those that several of them put counted more than once."""
        count = 0
        for view in reversed(self.views):
            # Where the oldest stores went, tombstones of what was in them are left: they hide nothing.
            count = max(0, count - view.tombstones) + view.records - view.tombstones
        return count

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

    def damage(self, uint32_t which, uint32_t cluster):
        """The error for a page of one of the stores that is not what was written."""
        return (<HashStoreView>self.views[which]).damage(cluster, "damaged; it was durable")
