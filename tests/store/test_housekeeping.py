"""What housekeeping does by itself: no failure stops it for others, and hash stores do not become many."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from store_faults import Faults, input_output_error
from store_media import Medium, create_settled, freeze, open_settled
from store_records import assert_holds, rows

from siltstone.errors import DamageError, SiltstoneError
from siltstone.format.superblock import Part
from siltstone.index.layout import HASH_STORES_MAX
from siltstone.shard.merging import MANY, TIER_WIDTH, choose_merge, tier
from siltstone.shard.spares import make_spare


def store_of(length):
    """A hash store in two parts."""
    return tuple(
        SimpleNamespace(length=size, part=Part(first, 1, 0))
        for first, size in ((0, length // 3), (1 << 63, length - length // 3))
    )


def length_of(store):
    return sum(part.length for part in store)


@pytest.mark.parametrize("seed", range(20))
def test_hash_stores_of_any_sizes_in_any_order_stay_few(seed):
    chance = random.Random(seed)
    sizes = [[1 << 20, 1 << 26], [1 << 16], [1 << 30, 1 << 20, 1 << 24], None][seed % 4]
    stores = []
    for _ in range(500):
        length = chance.choice(sizes) if sizes else 1 << chance.randrange(16, 27)
        stores.insert(0, store_of(length))
        while run := choose_merge(stores):
            at = stores.index(run[0])
            assert stores[at : at + len(run)] == list(run)
            # Overwritten or deleted, some of it is gone.
            length = int(sum(length_of(each) for each in run) * chance.uniform(0.2, 1))
            stores[at : at + len(run)] = [store_of(length)]
        levels = 1 + tier(max(map(length_of, stores)))
        assert len(stores) <= (TIER_WIDTH - 1) * levels < MANY


def test_who_incarnates_faster_than_housekeeping_merges_goes_on(path, host):
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as store:
        group = store._core.shards.group
        for number in range(HASH_STORES_MAX + 10):
            store.put_many(*rows(range(10 * number, 10 * number + 10)))
            freeze(store)
            assert group.upkeep.incarnate(group.shards[0])
            assert len(group.shards[0].store.hash_stores) <= MANY
        assert_holds(store, range(10 * HASH_STORES_MAX + 100))


def test_a_damaged_journal_does_not_keep_other_shards_from_being_tidied(path, host):
    faults = Faults()
    create_settled(Medium(str(path)), host, shards=3)
    with open_settled(Medium(f"faulty:{path}"), faults.host()) as store:
        group = store._core.shards.group
        store.put_many(*rows(range(3000)))
        freeze(store)
        store.put_many(*rows(range(1000, 3000), version=1))
        before = {number: store._core.volume.superblock.journals(number) for number in group.shards}
        bad = before[0][0]

        def unreadable(_inner, offset, length):
            if bad.offset < offset + length and offset < bad.stop:
                raise input_output_error("read", offset, length)

        faults.read = unreadable
        group.tick()
        superblock = store._core.volume.superblock
        assert superblock.journals(0) == before[0]
        for number in (1, 2):
            assert superblock.journals(number) != before[number]
        # Whoever asks is told.
        with pytest.raises(SiltstoneError, match="EIO"):
            store.pack()
        assert_holds(store, range(1000))


def test_what_fails_for_ever_rests_and_the_rest_of_its_shard_is_tidied(path, host, monkeypatch, caplog):
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as store:
        group = store._core.shards.group
        for number in range(TIER_WIDTH):
            store.put_many(*rows(range(10 * number, 10 * number + 10)))
            freeze(store)
            group.upkeep.incarnate(group.shards[0])
        asked = []

        def damaged(shard):
            asked.append(shard)
            raise DamageError("a journal", journal=1, cluster=0, offset=0)

        monkeypatch.setattr(group.upkeep, "pack", damaged)
        for _tick in range(5):
            group.tick()
        assert len(asked) == 1
        assert len(group.shards[0].store.hash_stores) == 1
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_index_that_fills_from_one_journal_is_incarnated_before_anybody_waits_for_it(path, host):
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host, index_memory=1 << 20) as store:
        shard = store._core.shards.group.shards[0]
        # A journal that takes more than the index does.
        make_spare(shard, 2000)
        store.put_many(*rows(range(100)))
        store.incarnate()
        start = 100
        while shard.store.slots <= shard.store.size.records * 0.75:
            store.put_many(*rows(range(start, start + 4000)))
            start += 4000
        assert len(store._core.volume.superblock.journals(0)) == 1
        store._core.shards.group.tick()
        assert shard.store.slots == 0
        assert_holds(store, range(start))


def test_housekeeping_of_a_store_that_closes_says_nothing(path, host, caplog):
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host, index_memory=1 << 20)
    group = store._core.shards.group
    store.put_many(*rows(range(80_000)))
    group.end()
    group.tick()
    assert not caplog.records
    store._core.abandon()


def test_who_packs_looks_soon_whether_there_is_more_to_pack(path, host, monkeypatch):
    """One run at a time: who overwrites faster than others call housekeeping would fill the volume else."""
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as store:
        group, calls = store._core.shards.group, []
        monkeypatch.setattr(group.upkeep, "_wake", lambda: calls.append(None))
        for version in range(4):
            store.put_many(*rows(range(2_000), version))
            freeze(store)
        ticks = 0
        while calls or not ticks:
            calls.clear()
            before = store.info().journals
            group.tick()
            ticks += 1
            assert bool(calls) == (store.info().journals < before)
        # The last tick found nothing any more.
        assert ticks > 1
        assert_holds(store, range(2_000), 3)
