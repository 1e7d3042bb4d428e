"""A full volume with hash stores: what is deleted gives its space back, again and again, down to nothing."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from real_media import mounted, run
from store_records import assert_versions, hashes, rows

import siltstone
from siltstone.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

STEP = 500
KEYS = 100_000


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 5 MiB."""
    with mounted("tmpfs", tmp_path / "disk", "-t", "tmpfs", "-o", "size=5m") as point:
        yield point
        gc.collect()


class Model:
    """What a store was given: the version of each key, -1 for none."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(3)
        self.versions = np.full(KEYS, -1)
        self.last = 0

    def fill(self, store, most: int = 10_000) -> int:
        """Put until there is no space, in so many calls at most; how many went well."""
        for calls in range(most):
            keys = self.chance.choice(KEYS, STEP, replace=False)
            self.last += 1
            try:
                store.put_many(*rows(keys, self.last))
            except DiskFullError:
                # Each shard has taken its part whole, or nothing of it.
                found, physical, _logical = store.get_many(hashes(keys))
                taken = found & (physical == rows(keys, self.last)[1])
                self.versions[keys[taken]] = self.last
                return calls
            self.versions[keys] = self.last
        assert most < 10_000, "it does not become full"
        return most

    def delete(self, store, part: float) -> None:
        """Delete a part of all that is there, anywhere; none of it may be refused."""
        there = np.flatnonzero(self.versions >= 0)
        doomed = self.chance.choice(there, int(part * len(there)), replace=False)
        for start in range(0, len(doomed), STEP):
            keys = doomed[start : start + STEP]
            assert store.delete_many(hashes(keys)).all()
            self.versions[keys] = -1


@pytest.mark.parametrize(("shards", "workers"), [(1, 0), (2, 2)])
def test_a_full_volume_with_hash_stores_is_cleaned_by_deleting(disk, shards, workers):
    model = Model()
    options = {"shards": shards, "erase_block": 64 * 1024, "index_memory": 1 << 20, "workers": workers}
    with siltstone.open(disk / "store.silt", **options) as store:
        # Most of what there is lies in hash stores.
        first = model.fill(store, 40)
        store.incarnate()
        first += model.fill(store)
        assert store.info().hash_stores > 0
        for _ in range(2):
            assert_versions(store, model.versions)
            model.delete(store, 0.7)
            assert_versions(store, model.versions)
            assert model.fill(store) > first // 3, "what is deleted makes room"
        model.delete(store, 1.0)
        store.incarnate()
        info = store.info()
        assert (len(store), info.hash_stores, info.hash_store_bytes) == (0, 0, 0)
        assert info.free_bytes > info.volume_bytes // 2
        assert model.fill(store) > first // 2
        assert_versions(store, model.versions)
        store.flush()
    with siltstone.open(disk / "store.silt", workers=workers) as store:
        assert_versions(store, model.versions)


def fill_up(store, incarnated):
    """Put one key after the other until the volume is full, so many of them into a hash store; how many there are."""
    keys = 0
    with pytest.raises(DiskFullError):
        while True:
            store.put_many(*rows(range(keys, keys + STEP), 1))
            keys += STEP
            if keys == incarnated:
                store.incarnate()
    return keys


def test_where_the_index_is_full_too_deletions_go_on(disk):
    """The oldest first: all of them lie in hash stores, so that each takes room in the index."""
    run("mount", "-o", "remount,size=16m", disk)
    with siltstone.open(
        disk / "store.silt", shards=1, erase_block=64 * 1024, index_memory=1 << 20, workers=0
    ) as store:
        keys = fill_up(store, 50_000)
        for start in range(0, keys, STEP):
            assert store.delete_many(hashes(range(start, start + STEP))).all()
        found = store.get_many(hashes(range(keys)))[0]
        assert not found.any()
        store.incarnate()
        assert store.info().hash_store_bytes == 0


@pytest.mark.parametrize(("mebibytes", "incarnated"), [(6, 20_000), (6, 50_000), (11, 0)])
@pytest.mark.parametrize("oldest", [True, False], ids=["oldest", "anywhere"])
def test_where_journals_hold_much_that_is_alive_deletions_go_on(disk, mebibytes, incarnated, oldest):
    """Making hash stores of these would take more space than it gives."""
    run("mount", "-o", f"remount,size={mebibytes}m", disk)
    with siltstone.open(
        disk / "store.silt", shards=1, erase_block=64 * 1024, index_memory=2 << 20, workers=0
    ) as store:
        keys = fill_up(store, incarnated)
        order = np.arange(keys) if oldest else np.random.default_rng(1).permutation(keys)
        for start in range(0, keys, STEP):
            assert store.delete_many(hashes(order[start : start + STEP])).all()
        assert not store.get_many(hashes(range(keys)))[0].any()


def test_what_an_index_has_no_room_for_leaves_the_reserve_to_merges(disk):
    model = Model()
    with siltstone.open(
        disk / "store.silt", shards=1, erase_block=64 * 1024, index_memory=1 << 20, workers=0
    ) as store:
        store._core.shards.end_housekeeping()
        model.fill(store, 40)
        store.incarnate()
        model.fill(store)
        group, before = store._core.shards.group, store.info().reserved_bytes
        with pytest.raises(DiskFullError):
            while group.upkeep.incarnate(group.shards[0]):
                pass
        assert store.info().reserved_bytes == before
        assert_versions(store, model.versions)
