"""Any sequence of calls, clean closes and deaths of a store, against a plain model of what must be there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_folders import quick_temporary_folder
from store_model import HASHES, UNIVERSE, History, Operation, seen_in, shards_of_keys

import siltstone
from siltstone import HashInfo
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.log_store.older_views import by_store, first_hash
from siltstone.plugin import Consumer, EntryType, hookimpl
from siltstone.plugin.host import PluginHost
from siltstone.shard import sizing
from siltstone.shard.merging import choose_merge, merge_slice
from siltstone.shard.rolling import freeze


@dataclass(frozen=True)
class Note:
    """Has no key, and a number that rises."""

    number: int


class Notes:
    """A plugin for notes, and a consumer that keeps their numbers."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def siltstone_entry_types(self):
        """Yield the one type."""
        yield EntryType(
            id=0x80,
            name="note",
            version=1,
            record=Note,
            encode=lambda note: note.number.to_bytes(8, "big"),
            decode=lambda payload: Note(int.from_bytes(payload, "big")),
        )

    @hookimpl
    def siltstone_consumers(self):
        """Yield the one consumer."""
        yield Consumer(name="notes", entry_types=frozenset({"note"}), consume=self.take)

    def take(self, batch):
        """Keep the numbers of some."""
        self.seen += [int.from_bytes(payload, "big") for payload in batch.payloads]


NOTES = Notes()
PLUGINS = PluginHost.load(None, extra=[NOTES])

#: a run of keys: where it starts and how long it is; a few keys, or enough to fill and roll a small journal
runs = st.tuples(st.integers(0, UNIVERSE - 1), st.one_of(st.integers(1, 5), st.integers(1, 3000)))


class StoreMachine(RuleBasedStateMachine):
    """A store, and what it must show."""

    @initialize(shards=st.sampled_from([1, 2, 5]))
    def make(self, shards):
        self.ending = contextlib.ExitStack()
        self.path = self.ending.enter_context(quick_temporary_folder()) / "store.silt"
        # Some pages: few records lie in several parts, and are merged in several slices.
        part = mock.patch.object(sizing, "part_size", lambda _superblock, _shard: 6 * CLUSTER_SIZE)
        self.ending.enter_context(part)
        self.history = History()
        self.number = 0
        self.noted = self.flushed = 0
        self.store = self.open(shards=shards, erase_block=64 * 1024)
        self.shards = shards_of_keys(self.store)

    def open(self, **options):
        NOTES.seen.clear()
        # The least that there is: some runs fill it.
        store = siltstone.open(self.path, plugins=PLUGINS, index_memory=1 << 20, **options)
        # Those that were flushed are all there, and no others but the first of the rest; in their order.
        assert NOTES.seen == list(range(len(NOTES.seen)))
        assert self.flushed <= len(NOTES.seen) <= self.noted
        return store

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.ending.close()

    def do(self, call, keys, deleted=None):
        self.number += 1
        keys = np.asarray(keys, np.int64)
        values = np.arange(1, len(keys) + 1, dtype=np.uint64) + np.uint64(self.number << 16)
        if deleted is not None:
            values[deleted] = 0
        operation = Operation(call, keys, values)
        operation.run(self.store)
        self.history.pending.append(operation)

    # ---- calls

    @rule(key=st.integers(0, UNIVERSE - 1))
    def put(self, key):
        self.number += 1
        value = self.number << 16
        self.store.put(HashInfo(HASHES[key].tobytes(), value, (1 << 64) - 1 - value))
        self.history.pending.append(Operation("put_many", np.array([key]), np.array([value], np.uint64)))

    @rule(run=runs)
    def put_many(self, run):
        self.do("put_many", (run[0] + np.arange(run[1])) % UNIVERSE)

    @rule(keys=st.lists(st.integers(0, 3), min_size=1, max_size=20))
    def put_equal_hashes(self, keys):
        self.do("put_many", keys)

    @rule(key=st.integers(0, UNIVERSE - 1))
    def delete(self, key):
        present = bool(self.history.current()[key])
        assert self.store.delete(HASHES[key].tobytes()) is present
        self.history.pending.append(Operation("delete_many", np.array([key]), np.zeros(1, np.uint64)))

    @rule(run=runs)
    def delete_many(self, run):
        keys = (run[0] + np.arange(run[1])) % UNIVERSE
        self.do("delete_many", keys, slice(None))

    @rule(run=runs, part=st.integers(2, 5))
    def batch(self, run, part):
        keys = (run[0] + np.arange(run[1])) % UNIVERSE
        # Some are put, and deleted by the same batch.
        keys = np.concatenate((keys, keys[::part]))
        self.do("batch", keys, np.arange(len(keys)) >= run[1])

    @rule()
    def flush(self):
        self.store.flush()
        self.flushed = self.noted
        self.history.settle()

    @rule()
    def tick(self):
        self.store._core.shards.group.tick()

    @rule()
    def pack(self):
        self.store.pack()

    @rule()
    def incarnate(self):
        self.store.incarnate()
        # Everything is merged: nothing is counted twice.
        assert len(self.store) == np.count_nonzero(self.history.current())

    @rule(shard=st.integers(0, 4))
    def incarnate_some(self, shard):
        """Leave hash stores over each other, as housekeeping does."""
        group = self.store._core.shards.group
        shard = group.shards[shard % len(group.shards)]
        with group._flush_lock:
            freeze(shard)
        group.upkeep.incarnate(shard)

    @rule(shard=st.integers(0, 4), first=st.integers(0, 5), count=st.integers(1, 5))
    def merge_some(self, shard, first, count):
        group = self.store._core.shards.group
        shard = group.shards[shard % len(group.shards)]
        with group.upkeep.lock:
            # Housekeeping merges, too: what there was before may be gone.
            stores = by_store(shard.store.hash_stores)
            # One that was begun goes on; else whatever neighbours there are.
            begun = any(first_hash(parts[0]) for parts in stores)
            sources = choose_merge(stores) if begun else stores[first : first + count]
            if sources:
                merge_slice(shard, sources)

    @rule(number=st.integers(1, 400))
    def note(self, number):
        """Entries without a key, between the others."""
        for _ in range(number):
            self.store.put(Note(self.noted))
            self.noted += 1

    # ---- lives

    @rule()
    def reopen(self):
        self.store.close()
        self.flushed = self.noted
        self.history.settle()
        self.store = self.open()
        assert self.store.info().clean

    @rule()
    def die(self):
        self.store._core.abandon()
        self.store = self.open()
        self.flushed = self.noted = len(NOTES.seen)
        assert not self.store.info().clean
        self.history.settle_as(seen_in(self.store), self.shards)

    @precondition(lambda self: not self.history.pending)
    @rule()
    def look_read_only(self):
        self.store._core.abandon()
        with self.open(read_only=True) as store:
            np.testing.assert_array_equal(seen_in(store), self.history.base)
        self.store = self.open()
        self.flushed = self.noted = len(NOTES.seen)

    @invariant()
    def shows_what_it_must(self):
        if hasattr(self, "store"):
            np.testing.assert_array_equal(seen_in(self.store), self.history.current())


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])
