"""Hash stores in parts, and merges in slices: at any moment a store says what it said, however far a merge has come."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from parts_model import KEYS, Model, merge_one, shard_of, stores_of
from store_media import Medium, create_settled, incarnate, open_settled
from store_records import hashes

import siltstone
from siltstone.errors import DamageError, DiskFullError, LogStoreFullError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.superblock import EMPTY, KIND_HASH_STORE
from siltstone.log_store.older_views import first_hash
from siltstone.shard import filling, incarnation, merging, sizing
from siltstone.shard.merging import TIER_WIDTH, choose_merge, drop_oldest, merge_slice

pytestmark = pytest.mark.usefixtures("small_parts")


def fill(model, store, times):
    """Make so many hash stores of what is put and deleted."""
    for _ in range(times):
        model.put(store)
        model.delete(store)
        incarnate(store)


@pytest.mark.parametrize("seed", range(4))
def test_every_slice_leaves_what_was_there(path, host, seed):
    """Also where it is opened anew behind it, and where more comes before the merge ends."""
    model, chance = Model(seed), random.Random(seed)
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    slices = 0
    try:
        fill(model, store, 3)
        while merge_one(store) and slices < 200:
            slices += 1
            model.check(store)
            if chance.random() < 0.2:
                store.close()
                store = open_settled(Medium(str(path)), host)
                model.check(store)
            if chance.random() < 0.1:
                fill(model, store, 1)
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
    fill(model, store, TIER_WIDTH + 2)
    stores = stores_of(store)
    merge_slice(shard_of(store), stores[1:3])
    begun = [parts for parts in stores_of(store) if first_hash(parts[0]) > 0]
    assert [parts[0].order for parts in begun] == [stores[2][0].order]
    for everything in (False, True):
        chosen = choose_merge(stores_of(store), everything=everything)
        assert [parts[0].order for parts in chosen] == [parts[0].order for parts in stores[1:3]]
    fill(model, store, 1)
    while len(choose_merge(stores_of(store))) == 2:
        assert merge_one(store, everything=False)
        model.check(store)
    assert [parts[0].order for parts in stores_of(store)][2:] == [parts[0].order for parts in stores[3:]][
        :0
    ] + [parts[0].order for parts in (stores[1], *stores[3:])]


def test_one_store_alone_is_not_merged_with_itself_wherever_it_begins(store):
    model = Model(9)
    fill(model, store, 1)
    (parts,) = stores_of(store)
    alone = [tuple(replace(part, part=part.part._replace(first=part.part.first + 1)) for part in parts)]
    for stores in ([parts], alone):
        for everything in (False, True):
            assert choose_merge(stores, everything=everything) == ()


def test_the_next_slice_comes_soon(store):
    """As long as there is one: what keeps house is not left to its next look."""
    model = Model(12)
    fill(model, store, TIER_WIDTH)
    wakeup, group = store._core.shards._wakeup, store._core.shards.group
    ticks = 0
    while len(stores_of(store)) > 1:
        wakeup.wait(0)
        group.tick()
        assert wakeup.wait(0)
        ticks += 1
    assert ticks > 2
    model.check(store)


def test_incarnating_all_ends_while_others_put_and_incarnate(store):
    model, group = Model(13), store._core.shards.group
    fill(model, store, 2)
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
    fill(model, store, 2)
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
    fill(model, store, 2)
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
    fill(model, store, 2)
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
    fill(model, store, 2)
    for parts in stores_of(store):
        assert len(parts) > 2
        firsts = [first_hash(part) for part in parts]
        assert firsts[0] == 0
        assert firsts == sorted(set(firsts))


def test_space_is_freed_as_a_merge_goes_on(store):
    """Beside what there was it takes of each store one part, and the one that is being written."""
    model = Model(3)
    fill(model, store, TIER_WIDTH)
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
    fill(model, store, 3)
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
        fill(model, store, 3)
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
    fill(model, store, 2)
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
        fill(model, store, 2)
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
