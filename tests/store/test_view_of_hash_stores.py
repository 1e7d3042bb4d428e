"""Lookups from a process that does not write the index, when hash stores change under them."""

from __future__ import annotations

import os

import pytest
from store_records import digest, hashes, rows

from siltstone.errors import DamageError
from siltstone.index.layout import forsake
from siltstone.index.view import IndexView
from siltstone.log_store.log_store import LogStore
from siltstone.log_store.memory import shared_memory
from siltstone.log_store.older_views import OlderViews
from siltstone.lookup.reader import Reader
from siltstone.shard.rolling import freeze

HASH = 0x02


class Stop(Exception):
    """A lookup that would go on for ever."""


def stop(_shard):
    raise Stop


class Shared:
    """The hash stores of a store, listed in an index in shared memory, and a view of it."""

    def __init__(self, store):
        self.shard = store._core.shards.group.shards[0]
        self.group = store._core.shards.group
        own = self.shard.store
        size = own.size
        descriptor = shared_memory("test index", size.address_bytes)
        self.writable = size.map_shared(descriptor, writable=True)
        self.log_store = LogStore(own.backend, own.uuid, own.types, size, memory=self.writable)
        self.opened = OlderViews(own.backend, own.uuid, own.types).open
        self.before_opening = lambda: None
        self.view = IndexView(
            size.map_shared(descriptor, writable=False),
            own.types,
            own.uuid,
            size.segments,
            size.window_bytes,
            lambda *_: None,
            self.open,
        )
        os.close(descriptor)
        self.reader = Reader([self.view], None, stop)

    def open(self, listing):
        act, self.before_opening = self.before_opening, lambda: None
        act()
        return self.opened(listing)

    def incarnate(self):
        with self.group._flush_lock:
            freeze(self.shard)
        self.group.upkeep.incarnate(self.shard)
        self.show()

    def show(self):
        self.log_store.show_hash_stores(self.shard.store.hash_stores)

    def spoil(self, extent):
        """Let somebody else have the extent."""
        self.log_store.backend.write(extent.offset, bytes(8192))


def test_what_is_damaged_in_a_list_that_is_not_there_any_more_is_nobodys_error(store):
    """The extents were freed between a look at the list and a look at them, and written over."""
    shared = Shared(store)
    for part in range(2):
        store.put_many(*rows(range(100 * part, 100 * part + 100)))
        shared.incarnate()
    old = shared.shard.store.hash_stores

    def merge():
        shared.group.upkeep.merge(shared.shard, everything=True)
        shared.show()
        for extent in old:
            shared.spoil(extent)

    shared.before_opening = merge
    assert shared.reader.get_many(HASH, hashes(range(200)), 48)[0].all()
    assert shared.view.keys == 200
    # One that is listed is somebody's.
    (left,) = shared.shard.store.hash_stores
    shared.spoil(left)
    again = Shared(store)
    again.log_store._older.open = lambda _listing: shared.opened([])
    again.show()
    with pytest.raises(DamageError):
        again.reader.get(HASH, digest(1))


def test_no_lookup_ends_in_an_index_whose_writer_is_gone(store):
    """Its hash stores may be merged by the next one, and their extents be others'."""
    shared = Shared(store)
    store.put_many(*rows(range(100)))
    shared.incarnate()
    for number in (1, 1000):
        shared.reader.get(HASH, digest(number))
    forsake(shared.writable, shared.log_store.size.segments)
    for number in (1, 1000):
        with pytest.raises(Stop):
            shared.reader.get(HASH, digest(number))
        with pytest.raises(Stop):
            shared.reader.get_many(HASH, hashes([number]), 48)
