"""len(store): at most, never fewer than there are, however puts and deletions lie over each other in hash stores."""

from __future__ import annotations

import random

import pytest
from store_media import incarnate
from store_records import hashes, rows

from siltstone.log_store.older_views import by_store
from siltstone.shard import merging


def stores_of(store):
    return by_store(store._core.shards.group.shards[0].store.hash_stores)


def merge(store, first, last):
    merging.merge_slice(store._core.shards.group.shards[0], stores_of(store)[first:last])


def test_deletions_that_are_merged_without_the_oldest_count_once(store):
    for _ in range(2):
        store.put_many(*rows(range(100)))
        incarnate(store)
        store.delete_many(hashes(range(100)))
        incarnate(store)
    assert len(store) == 0
    merge(store, 0, 2)
    assert len(store) == 0
    merge(store, 0, 2)
    assert len(store) == 0
    assert not store.get_many(hashes(range(100)))[0].any()


@pytest.mark.parametrize("seed", range(10))
def test_any_merges_of_neighbours_never_count_too_few(store, seed):
    chance = random.Random(seed)
    held: set[int] = set()
    for _step in range(60):
        keys = chance.sample(range(30), chance.randrange(1, 15))
        what = chance.random()
        if what < 0.3:
            store.put_many(*rows(keys))
            held |= set(keys)
        elif what < 0.6:
            store.delete_many(hashes(keys))
            held -= set(keys)
        elif what < 0.8:
            incarnate(store)
        else:
            count = len(stores_of(store))
            first = chance.randrange(count + 1)
            last = chance.randrange(first, count + 1)
            if last > first:
                merge(store, first, last)
        assert len(store) >= len(held)
        assert set(store.get_many(hashes(range(30)))[0].nonzero()[0].tolist()) == held
