"""Sweeps of a hash store: at any moment a store says what it said, and what journals overrule is gone at the end."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from parts_model import KEYS, Model, merge_one, shard_of
from store_media import Medium, create_settled, open_settled
from store_records import assert_versions, digest, hashes, rows

import siltstone
from siltstone.errors import MediumError, StateError
from siltstone.format.constants import TYPE_HASH
from siltstone.format.superblock import CLOSED
from siltstone.hash_store.sorting import hashes_of
from siltstone.shard import merging, sweeping
from siltstone.shard.batches import delete_stream
from siltstone.shard.choosing import Run
from siltstone.shard.merging import rewrite_slice
from siltstone.shard.packing import Packing
from siltstone.shard.rolling import freeze
from siltstone.shard.sweeping import Overruling, Sweep

pytestmark = pytest.mark.usefixtures("small_parts")


def close_journal(store):
    with store._core.shards.group._flush_lock:
        freeze(shard_of(store))


def found_in(shard):
    """What overrules the hash store of a shard."""
    overruling = Overruling(shard)
    overruling.look()
    assert overruling.is_all
    return overruling


def sweep_of(store):
    return Sweep(shard_of(store), found_in(shard_of(store)))


def pack_all(store):
    """Pack all closed journals, whatever they hold."""
    shard = shard_of(store)
    closed = tuple(each for each in shard.volume.superblock.journals(0) if each.state == CLOSED)
    Packing(shard, Run(closed, oldest=True), store._core.shards.group.flush).carry_out()
    return closed


def by_hash(store, model):
    """The keys that are there, in the order of a hash store."""
    there = np.flatnonzero(model.versions >= 0)
    shard = shard_of(store)
    stream = delete_stream(TYPE_HASH, hashes(there))
    return there[np.argsort(hashes_of(shard.store.types, shard.volume.superblock.uuid, stream))]


def one_hash_store(store, model):
    """Put most keys, and make one hash store of them."""
    model.put(store, 1200)
    upkeep, shard = store._core.shards.group.upkeep, shard_of(store)
    close_journal(store)
    assert upkeep.incarnate(shard)
    while merge_one(store):
        pass
    assert len(shard.store.hash_stores) > 5


def overrule(store, model):
    """Overwrite and delete some, in a journal that is closed."""
    model.put(store, 300)
    model.delete(store, 300)
    close_journal(store)


@pytest.mark.parametrize("seed", range(4))
def test_every_slice_leaves_what_was_there_and_the_last_one_no_more(path, host, seed):
    model, chance = Model(seed), random.Random(seed)
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    try:
        one_hash_store(store, model)
        overrule(store, model)
        sweep, slices = sweep_of(store), 0
        while not sweep.over:
            sweep.slice()
            slices += 1
            model.check(store)
            if chance.random() < 0.2:
                store.close()
                store = open_settled(Medium(str(path)), host)
                model.check(store)
                sweep = sweep_of(store)
            assert slices < 200
        assert slices > 5
        # What lies in the hash store is what counts, and the index remembers no deletion.
        shard = shard_of(store)
        assert shard.store.index.tombstones == 0
        assert not len(found_in(shard))
        model.check(store, exact=True)
        entries = sum(part.part.entries for part in shard.store.hash_stores)
        assert entries + shard.store.index.records == np.count_nonzero(model.versions >= 0)
        store.close()
        store = open_settled(Medium(str(path)), host)
        model.check(store, exact=True)
    finally:
        store.close()
    assert siltstone.verify(path).ok


def test_what_comes_meanwhile_counts_more(store):
    """Keys put and deleted between two slices, those that the sweep is about among them."""
    model = Model(1)
    one_hash_store(store, model)
    overrule(store, model)
    sweep = sweep_of(store)
    while not sweep.over:
        sweep.slice()
        model.put(store, 40)
        model.delete(store, 40)
        model.check(store)
    # What was put before the sweep came to it is there twice.
    close_journal(store)
    again = sweep_of(store)
    while not again.over:
        again.slice()
    assert shard_of(store).store.index.tombstones == 0
    model.check(store, exact=True)
    assert store._core.shards.group.upkeep.incarnate(shard_of(store))
    assert_versions(store, model.versions)


def swept_in_part(store):
    """A model of a store with a hash store of which a slice is swept, and the sweep."""
    model = Model(1)
    one_hash_store(store, model)
    overrule(store, model)
    sweep = sweep_of(store)
    sweep.slice()
    return model, sweep


def test_deletions_between_two_slices_are_counted_right(store):
    model, sweep = swept_in_part(store)
    model.delete(store, 200)
    while not sweep.over:
        sweep.slice()
        model.check(store)


def test_deletions_that_were_packed_between_two_slices_are_forgotten_all_the_same(store):
    model, sweep = swept_in_part(store)
    pack_all(store)
    while not sweep.over:
        sweep.slice()
        model.check(store)
    assert shard_of(store).store.index.tombstones == 0
    model.check(store, exact=True)


def test_what_is_put_where_a_deletion_was_counts(store):
    """In a journal with the number of the one that the sweep began with, at the same place."""
    model = Model(1)
    one_hash_store(store, model)
    shard = shard_of(store)
    key = by_hash(store, model)[-1]
    assert store.delete(digest(key))
    model.versions[key] = -1
    model.delete(store, 300)
    close_journal(store)
    sweep = sweep_of(store)
    sweep.slice()
    number = shard.store.number_of(shard.volume.superblock.journals(0)[0])
    pack_all(store)
    for _ in range(10):
        if shard.store.number_of(shard.journal.extent) == number:
            break
        model.put(store, 10)
        close_journal(store)
    assert shard.store.number_of(shard.journal.extent) == number
    store.put_many(*rows([key], 77))
    model.versions[key] = 77
    store.flush()
    while not sweep.over:
        sweep.slice()
        model.check(store)
    close_journal(store)
    pack_all(store)
    model.check(store)


def test_a_sweep_is_over_once_what_overruled_lies_in_hash_stores_itself(store):
    """Else it would leave out what counts."""
    model = Model(2)
    one_hash_store(store, model)
    overrule(store, model)
    shard = shard_of(store)
    sweep = sweep_of(store)
    sweep.slice()
    assert not sweep.over
    assert store._core.shards.group.upkeep.incarnate(shard)
    assert sweep.over
    while merge_one(store):
        pass
    assert sweep.over
    model.check(store, exact=True)


def test_what_is_not_closed_overrules_nothing_yet(store):
    model = Model(3)
    one_hash_store(store, model)
    model.put(store, 300)
    model.delete(store, 300)
    assert not len(found_in(shard_of(store)))
    store.flush()
    assert not len(found_in(shard_of(store)))
    close_journal(store)
    assert len(found_in(shard_of(store)))


def test_all_that_is_deleted_leaves_nothing(store):
    model = Model(4)
    one_hash_store(store, model)
    assert store.delete_many(hashes(range(KEYS))).sum() == len(model.versions[model.versions >= 0])
    close_journal(store)
    shard = shard_of(store)
    sweep = sweep_of(store)
    while not sweep.over:
        sweep.slice()
    assert (shard.store.hash_stores, shard.store.index.tombstones, len(store)) == ((), 0, 0)
    # Packing gives up what deleted it.
    while store._core.shards.group.upkeep.pack(shard):
        pass
    store.put_many(*rows(range(10)))
    assert len(store) == 10


def test_condensing_sweeps_and_what_it_frees_is_free(store):
    model = Model(5)
    one_hash_store(store, model)
    overrule(store, model)
    shard, upkeep = shard_of(store), store._core.shards.group.upkeep
    before = sum(part.length for part in shard.store.hash_stores)
    while upkeep.condense(shard, sparing=False, end=math.inf):
        assert_versions(store, model.versions)
    assert sum(part.length for part in shard.store.hash_stores) < 0.8 * before
    model.check(store, exact=True)
    # Nothing is left to give: it says so without looking again, whoever asks.
    looked = []
    usual = shard.store.living
    shard.store.living = lambda *arguments, **options: looked.append(1) or usual(*arguments, **options)
    for sparing in (True, False, True, False):
        assert not upkeep.condense(shard, sparing=sparing, end=math.inf)
    assert not looked


def test_what_time_did_not_suffice_for_goes_on_where_it_was(store, monkeypatch):
    """A medium that is so slow that each call looks through one piece."""
    model = Model(5)
    one_hash_store(store, model)
    overrule(store, model)
    shard = shard_of(store)
    whole = len(found_in(shard))
    monkeypatch.setattr(sweeping, "_PIECE_CLUSTERS", 1)
    overruling, looks = Overruling(shard), 0
    now = 0.0

    def clock():
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(shard.volume, "ports", replace(shard.volume.ports, clock=clock))
    while not overruling.is_all:
        overruling.look(now + 1.5)
        looks += 1
        assert looks < 1000
    assert looks > 5
    assert len(overruling) == whole


class Failing:
    """What is written beside the journals, on a medium that cannot be flushed."""

    def __init__(self, volume):
        pass

    def flush(self):
        raise MediumError("it cannot be flushed", url="test", operation="flush")


def test_where_a_slice_cannot_be_flushed_everything_stays(store, monkeypatch):
    model = Model(6)
    one_hash_store(store, model)
    overrule(store, model)
    shard = shard_of(store)
    sweep = sweep_of(store)
    sweep.slice()
    before = shard.store.hash_stores
    with monkeypatch.context() as patch:
        patch.setattr(merging, "Unflushed", Failing)
        with pytest.raises(MediumError):
            sweep.slice()
    assert shard.store.hash_stores == before
    model.check(store)
    while not sweep.over:
        sweep.slice()
    model.check(store, exact=True)


def test_more_than_is_gathered_at_once_goes_in_several_sweeps(store, monkeypatch):
    model = Model(7)
    one_hash_store(store, model)
    overrule(store, model)
    shard, upkeep = shard_of(store), store._core.shards.group.upkeep
    monkeypatch.setattr(sweeping, "_PIECE_CLUSTERS", 1)
    monkeypatch.setattr(sweeping, "_GATHERED_BYTES", 5_000)
    overruling = Overruling(shard)
    overruling.look()
    assert not overruling.is_all
    while upkeep.condense(shard, sparing=False, end=math.inf):
        model.check(store)
    assert len(found_in(shard)) == 0
    model.check(store, exact=True)


def test_deletions_of_the_active_journal_are_swept_for_deletions_alone(store):
    """It is closed for that, and the next one may be of what is kept: nothing that puts may take."""
    model = Model(8)
    one_hash_store(store, model)
    model.delete(store, 1200)
    shard, upkeep = shard_of(store), store._core.shards.group.upkeep
    active = shard.journal.extent.id
    assert not upkeep.condense(shard, sparing=True, end=math.inf)
    assert shard.journal.extent.id == active
    upkeep.condense(shard, sparing=False, end=math.inf)
    assert shard.journal.extent.id != active
    model.check(store)


def test_a_slice_that_begins_within_a_part_is_refused(store):
    model = Model(9)
    one_hash_store(store, model)
    shard = shard_of(store)
    before = shard.store.hash_stores
    with pytest.raises(StateError, match="more than what was merged"):
        rewrite_slice(shard, before, 1, np.empty(0, np.uint8), lambda place: None)
    assert shard.store.hash_stores == before
    model.check(store)
