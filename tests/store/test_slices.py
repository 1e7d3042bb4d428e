"""Hash stores in parts, and merges in slices: at any moment a store says what it said, however far a merge has come."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from store_media import Medium, create_settled, incarnate, open_settled
from store_records import assert_versions, hashes, rows

import siltstone
from siltstone.errors import DamageError, DiskFullError, LogStoreFullError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.superblock import EMPTY, KIND_HASH_STORE
from siltstone.log_store.older_views import by_store, first_hash
from siltstone.shard import filling, incarnation, merging, sizing
from siltstone.shard.merging import TIER_WIDTH, choose_merge, drop_oldest, merge_slice

KEYS = 1500


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of some pages, so that few records lie in many."""
    chance = random.Random(7)
    monkeypatch.setattr(
        sizing, "part_size", lambda _superblock, _shard: chance.randrange(4, 6) * CLUSTER_SIZE
    )


class Model:
    """What a store was given: the version of each key, or none."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.versions = np.full(KEYS, -1)
        self.last = 0

    def put(self, store, count=400):
        keys = self.chance.choice(KEYS, count, replace=False)
        self.last += 1
        store.put_many(*rows(keys, self.last))
        self.versions[keys] = self.last

    def delete(self, store, count=200):
        keys = self.chance.choice(KEYS, count, replace=False)
        assert (store.delete_many(hashes(keys)) == (self.versions[keys] >= 0)).all()
        self.versions[keys] = -1

    def check(self, store):
        assert_versions(store, self.versions)
        assert len(store) >= np.count_nonzero(self.versions >= 0)

    def fill(self, store, times):
        for _ in range(times):
            self.put(store)
            self.delete(store)
            incarnate(store)


def shard_of(store):
    return store._core.shards.group.shards[0]


def stores_of(store):
    return by_store(shard_of(store).store.hash_stores)


def merge_one(store, *, everything=True):
    """Merge a slice; False where there was nothing to merge."""
    stores = choose_merge(stores_of(store), everything=everything)
    if stores:
        merge_slice(shard_of(store), stores)
    return bool(stores)


@pytest.mark.parametrize("seed", range(4))
def test_every_slice_leaves_what_was_there(path, host, seed):
    """Also where it is opened anew behind it, and where more comes before the merge ends."""
    model, chance = Model(seed), random.Random(seed)
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    slices = 0
    try:
        model.fill(store, 3)
        while merge_one(store) and slices < 200:
            slices += 1
            model.check(store)
            if chance.random() < 0.2:
                store.close()
                store = open_settled(Medium(str(path)), host)
                model.check(store)
            if chance.random() < 0.1:
                model.fill(store, 1)
                model.check(store)
        assert 5 < slices < 200
        assert len(stores_of(store)) == 1
        assert len(stores_of(store)[0]) > 5
        incarnate(store)
        while merge_one(store):
            pass
        model.check(store)
        # Everything is merged: nothing is counted twice, and no deletion is left.
        assert len(store) == np.count_nonzero(model.versions >= 0)
        assert sum(part.part.tombstones for part in shard_of(store).store.hash_stores) == 0
    finally:
        store.close()
    assert siltstone.verify(path).ok


def test_a_merge_that_was_begun_is_what_comes_next(store):
    model = Model(1)
    model.fill(store, TIER_WIDTH + 2)
    stores = stores_of(store)
    merge_slice(shard_of(store), stores[1:3])
    begun = [parts for parts in stores_of(store) if first_hash(parts[0]) > 0]
    assert [parts[0].order for parts in begun] == [stores[2][0].order]
    for everything in (False, True):
        chosen = choose_merge(stores_of(store), everything=everything)
        assert [parts[0].order for parts in chosen] == [parts[0].order for parts in stores[1:3]]
    model.fill(store, 1)
    while len(choose_merge(stores_of(store))) == 2:
        assert merge_one(store, everything=False)
        model.check(store)
    assert [parts[0].order for parts in stores_of(store)][2:] == [parts[0].order for parts in stores[3:]][
        :0
    ] + [parts[0].order for parts in (stores[1], *stores[3:])]


def test_one_store_alone_is_not_merged_with_itself_wherever_it_begins(store):
    model = Model(9)
    model.fill(store, 1)
    (parts,) = stores_of(store)
    alone = [tuple(replace(part, part=part.part._replace(first=part.part.first + 1)) for part in parts)]
    for stores in ([parts], alone):
        for everything in (False, True):
            assert choose_merge(stores, everything=everything) == ()


def test_the_next_slice_comes_soon(store):
    """As long as there is one: what keeps house is not left to its next look."""
    model = Model(12)
    model.fill(store, TIER_WIDTH)
    wake, group = store._core.shards._wake, store._core.shards.group
    ticks = 0
    while len(stores_of(store)) > 1:
        wake.clear()
        group.tick()
        assert wake.is_set()
        ticks += 1
    assert ticks > 2
    model.check(store)


def test_incarnating_all_ends_while_others_put_and_incarnate(store):
    model, group = Model(13), store._core.shards.group
    model.fill(store, 2)
    begin = True
    for _step in range(100):
        if not group.upkeep.tidy(incarnate=True, begin=begin):
            break
        begin = False
        model.put(store, 100)
        incarnate(store)
    else:
        raise AssertionError("it does not end")
    model.check(store)


def test_a_merge_goes_on_where_another_process_took_the_piece_of_space_that_was_known(store, monkeypatch):
    model = Model(14)
    model.fill(store, 2)
    usual = filling.take_to_clean

    def take(shard, kind, size, **options):
        if size > 6 * CLUSTER_SIZE:
            raise DiskFullError("no space", url="here", needed=size)
        return usual(shard, kind, size, **options)

    monkeypatch.setattr(sizing, "part_size", lambda _superblock, _shard: 12 * CLUSTER_SIZE)
    monkeypatch.setattr(filling, "take_to_clean", take)
    monkeypatch.setattr(filling, "_largest_piece", lambda _shard, **_options: 1 << 30)
    while merge_one(store):
        pass
    assert len(stores_of(store)) == 1
    model.check(store)


def test_an_index_that_can_list_no_more_parts_says_so_and_merges_go_on(store, monkeypatch):
    model = Model(10)
    model.fill(store, 2)
    model.put(store)
    with monkeypatch.context() as patch:
        patch.setattr(incarnation, "_PARTS_MAX", len(shard_of(store).store.hash_stores))
        with pytest.raises(LogStoreFullError, match="parts") as caught:
            incarnate(store)
    assert caught.value.limit > 0
    model.check(store)
    while merge_one(store):
        model.check(store)
    incarnate(store)
    model.check(store)


def test_a_slice_whose_rest_cannot_be_counted_leaves_no_extent_behind(store, monkeypatch):
    model = Model(11)
    model.fill(store, 2)
    before = store._core.volume.superblock.hash_stores(0)

    def taken(*_arguments):
        raise DamageError("damaged", journal=1, cluster=0, offset=0)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_taken", taken)
        with pytest.raises(DamageError):
            merge_one(store)
    after = store._core.volume.superblock
    assert after.hash_stores(0) == before
    assert not [
        extent for extent in after.extents if extent.kind == KIND_HASH_STORE and extent.state == EMPTY
    ]
    model.check(store)


def test_the_parts_of_a_store_tile_its_hashes(store):
    model = Model(2)
    model.fill(store, 2)
    for parts in stores_of(store):
        assert len(parts) > 2
        firsts = [first_hash(part) for part in parts]
        assert firsts[0] == 0
        assert firsts == sorted(set(firsts))


def test_space_is_freed_as_a_merge_goes_on(store):
    """Beside what there was it takes of each store one part, and the one that is being written."""
    model = Model(3)
    model.fill(store, TIER_WIDTH)
    before = used(store)
    longest = max(part.length for parts in stores_of(store) for part in parts)
    most = before
    while merge_one(store):
        most = max(most, used(store))
    assert most - before <= (TIER_WIDTH + 1) * longest
    assert used(store) < before
    model.check(store)


def used(store):
    extents = store._core.volume.superblock.extents
    return sum(extent.length for extent in extents if extent.kind == KIND_HASH_STORE)


def test_the_oldest_goes_with_all_its_parts_also_in_the_middle_of_a_merge(store):
    model = Model(4)
    model.fill(store, 3)
    merge_one(store)
    orders = [parts[0].order for parts in stores_of(store)]
    assert drop_oldest(shard_of(store))
    assert [parts[0].order for parts in stores_of(store)] == orders[:-1]
    while merge_one(store):
        pass
    assert len(stores_of(store)) == 1


def test_what_is_exported_in_the_middle_of_a_merge_says_what_the_store_says(path, host, tmp_path):
    model = Model(5)
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as store:
        model.fill(store, 3)
        for _ in range(4):
            assert merge_one(store)
    held = set()
    for image in siltstone.export(path, tmp_path / "images"):
        data = image.path.read_bytes()
        at = 0
        while data[at + 1] != 0xFF:
            size, kind = data[at], data[at + 1]
            if kind == 0x02:
                held.add(data[at + 2 : at + 34])
            elif kind == 0x04:
                held.discard(data[at + 3 : at + 35])
            at += size
    assert held == {hashes([key])[0].tobytes() for key in np.flatnonzero(model.versions >= 0)}


def test_a_slice_that_fails_changes_nothing(store, monkeypatch):
    model = Model(6)
    model.fill(store, 2)
    assert merge_one(store)
    before = store._core.volume.superblock

    def flush(**_options):
        raise DiskFullError("no space", url="here")

    with monkeypatch.context() as patch:
        patch.setattr(store._core.volume, "flush", flush)
        with pytest.raises(DiskFullError):
            merge_one(store)
    after = store._core.volume.superblock
    assert after.hash_stores(0) == before.hash_stores(0)
    assert not [
        extent for extent in after.extents if extent.kind == KIND_HASH_STORE and extent.state == EMPTY
    ]
    model.check(store)
    while merge_one(store):
        pass
    model.check(store)


def test_a_damaged_part_stops_its_merge_and_no_other_answer(path, host):
    model = Model(8)
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as store:
        model.fill(store, 2)
        merge_one(store)
        doomed = stores_of(store)[-1][-1]
    with path.open("r+b") as file:
        file.seek(doomed.offset + CLUSTER_SIZE + 100)
        file.write(b"\xff" * 8)
    with open_settled(Medium(str(path)), host) as store:
        with pytest.raises(DamageError) as caught:
            while merge_one(store):
                pass
        assert caught.value.journal == doomed.id
        # What does not lie there is served.
        answered = 0
        for number in range(KEYS):
            try:
                found = store.get(hashes([number])[0].tobytes())
            except DamageError:
                continue
            answered += 1
            assert (found is not None) == (model.versions[number] >= 0)
        assert answered > KEYS // 2
