"""What a store of one shard was given, beside the store, and the hash stores that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from store_records import assert_versions, hashes, rows

from siltstone.log_store.older_views import by_store
from siltstone.shard.merging import choose_merge, merge_slice

if TYPE_CHECKING:
    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard
    from siltstone.store import Store

KEYS = 1500


class Model:
    """The version of each key, -1 for none."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.versions = np.full(KEYS, -1)
        self.last = 0

    def put(self, store: Store, count: int = 400) -> None:
        keys = self.chance.choice(KEYS, count, replace=False)
        self.last += 1
        store.put_many(*rows(keys, self.last))
        self.versions[keys] = self.last

    def delete(self, store: Store, count: int = 200) -> None:
        keys = self.chance.choice(KEYS, count, replace=False)
        assert (store.delete_many(hashes(keys)) == (self.versions[keys] >= 0)).all()
        self.versions[keys] = -1

    def check(self, store: Store, *, exact: bool = False) -> None:
        """It says what it was given; `exact`: and counts each key once."""
        assert_versions(store, self.versions)
        there = np.count_nonzero(self.versions >= 0)
        assert len(store) == there if exact else len(store) >= there


def shard_of(store: Store) -> Shard:
    return store._core.shards.group.shards[0]


def stores_of(store: Store) -> list[tuple[Extent, ...]]:
    """The parts of each hash store, the newest first."""
    return by_store(shard_of(store).store.hash_stores)


def merge_one(store: Store, *, everything: bool = True) -> bool:
    """Merge a slice; False where there was nothing to merge."""
    stores = choose_merge(stores_of(store), everything=everything)
    if stores:
        merge_slice(shard_of(store), stores)
    return bool(stores)
