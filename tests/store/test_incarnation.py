"""Journals that became hash stores: nothing is lost, next to no memory is taken, whoever runs the shards."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from store_dict import DictBeside
from store_records import hashes

import siltstone

SMALL = 64 * 1024


def test_any_changes_between_incarnations_are_kept(path):
    """Random puts and deletions, incarnated now and then, against a dict; opened again, also without a close."""
    both = DictBeside(path, shards=2, seed=3, most=1_500)
    for _step in range(50):
        both.change()
        what = both.chance.random()
        if what < 0.25:
            both.store.incarnate()
            assert len(both.store) == len(both.held)
        elif what < 0.35:
            both.store.pack()
        if both.chance.random() < 0.1:
            both.open_again()
        both.check()
        # What was put again since it was incarnated counts twice, until it is merged.
        assert len(both.held) <= len(both.store)
    both.store.incarnate()
    assert len(both.store) == len(both.held)
    both.store.close()


def test_an_index_that_reaches_its_budget_goes_on(path):
    """Five times what the index may hold; it is incarnated by itself, and nobody is told that it is full."""
    with siltstone.open(path, shards=2, erase_block=SMALL, index_memory=1 << 20) as store:
        limit = store.info().index_records_max
        names = hashes(range(5 * limit))
        values = np.arange(len(names), dtype=np.uint64)
        for start in range(0, len(names), limit // 3):
            part = slice(start, start + limit // 3)
            store.put_many(names[part], values[part], values[part])
        found, physical, _logical = store.get_many(names)
        assert found.all()
        np.testing.assert_array_equal(physical, values)
        assert not store.get_many(hashes(range(len(names), len(names) + 5_000)))[0].any()
        assert len(store) == len(names)
        assert 0 < store.info().hash_stores <= 2 * 12
        store.incarnate()
        # A filter of nine bits and a fence a page; the smallest index of 256 segments.
        assert store.info().index_bytes <= 2 * len(names) + (1 << 20)
    with siltstone.open(path, index_memory=1 << 20) as store:
        np.testing.assert_array_equal(store.get_many(names)[1], values)
        assert store.delete_many(names[:100]).all()
        assert not store.delete_many(names[:100]).any()
    with siltstone.open(path, read_only=True) as store:
        assert not store.get_many(names[:100])[0].any()
        assert store.get_many(names[100:])[0].all()


def test_readers_see_everything_while_it_is_incarnated(path):
    """A key that is there is found at any moment, and one that is not never is."""
    names = hashes(range(40_000))
    values = np.arange(len(names), dtype=np.uint64)
    absent = hashes(range(100_000, 101_000))
    wrong: list[str] = []
    over = threading.Event()

    def look() -> None:
        chance = np.random.default_rng()
        while not over.is_set():
            chosen = chance.integers(0, 20_000, 500)
            found, physical, _logical = store.get_many(names[chosen])
            if not found.all() or (physical != values[chosen]).any():
                wrong.append(f"{int((~found).sum())} keys of 500 missing")
            if store.get_many(absent)[0].any():
                wrong.append("a key that was never put")
            if store.get(names[int(chosen[0])].tobytes()) is None:
                wrong.append("one key missing")

    with siltstone.open(path, shards=2, erase_block=SMALL) as store:
        store.put_many(names[:20_000], values[:20_000], values[:20_000])
        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for start in range(20_000, 40_000, 2_000):
                part = slice(start, start + 2_000)
                store.put_many(names[part], values[part], values[part])
                store.incarnate()
                store.delete_many(names[part])
                store.pack()
        finally:
            over.set()
            for reader in readers:
                reader.join()
    assert not wrong


def test_what_is_deleted_everywhere_gives_its_space_back(path):
    names = hashes(range(50_000))
    values = np.arange(len(names), dtype=np.uint64)
    with siltstone.open(path, shards=2, erase_block=SMALL) as store:
        store.put_many(names, values, values)
        store.incarnate()
        info = store.info()
        assert (info.hash_stores, info.dead_entries, info.journal_bytes <= 4 * SMALL) == (2, 0, True)
        assert 50 * len(names) < info.hash_store_bytes < 60 * len(names)
        assert store.delete_many(names[:100]).all()
        store.put_many(names[:50], values[:50], values[:50])
        # Of the deletions those that were put again; what the others delete is in a hash store.
        assert store.info().dead_entries == 50
        store.delete_many(names)
        store.incarnate()
        assert len(store) == 0
        info = store.info()
        assert not [extent for extent in info.extents if extent.kind == "hash_store"]
        assert info.journal_bytes <= 4 * SMALL
        # It is used again.
        store.put_many(names, values, values)
        store.incarnate()
        assert store.info().volume_bytes <= info.volume_bytes


def test_incarnating_a_closed_store_or_a_read_only_one_is_refused(path):
    store = siltstone.open(path)
    store.close()
    with pytest.raises(siltstone.ClosedError):
        store.incarnate()
    with siltstone.open(path, read_only=True) as store, pytest.raises(siltstone.ReadOnlyError):
        store.incarnate()
