"""What upkeep promises those who wait for it, and those who put meanwhile."""

from __future__ import annotations

import math

import pytest
from store_records import assert_holds, hashes, rows

import siltstone
from siltstone.errors import DiskFullError
from siltstone.format.superblock import KIND_CHECKPOINT
from siltstone.shard import choosing, packing
from siltstone.shard.changes import Roll
from siltstone.shard.rolling import freeze
from siltstone.shard.upkeep import Upkeep

SMALL = 64 * 1024


@pytest.fixture
def store(path):
    """A store whose shards are here, for a window over its newest records."""
    options = {
        "shards": 1,
        "workers": 0,
        "erase_block": SMALL,
        "on_full": "drop_oldest",
        "hash_stores_max": 2,
    }
    with siltstone.open(path, **options) as opened:
        yield opened


def upkeep_of(store):
    group = store._core.shards.group
    return group.upkeep, group.shards[0]


def test_who_incarnates_waits_only_for_what_was_put_before(store, monkeypatch):
    """Somebody puts after each step, for ever."""
    upkeep, _shard = upkeep_of(store)
    usual, steps = upkeep.incarnate, []

    def incarnate(shard, **options):
        found = usual(shard, **options)
        steps.append(found)
        assert len(steps) < 20, "it goes on and on"
        store.put_many(*rows(range(1000 * len(steps), 1000 * len(steps) + 1000)))
        with store._core.shards.group._flush_lock:
            freeze(shard)
        return found

    monkeypatch.setattr(upkeep, "incarnate", incarnate)
    store.put_many(*rows(range(1000)))
    store.incarnate()
    assert steps[0]
    assert_holds(store, range(1000))


def test_a_shard_that_rolls_is_whole_to_others(store, monkeypatch):
    """Housekeeping looks at it without its lock."""
    _upkeep, shard = upkeep_of(store)
    usual, seen = shard.volume.publish, []

    def publish(change, **options):
        if isinstance(change, Roll):
            shard.check()
            seen.append(shard.room)
        return usual(change, **options)

    monkeypatch.setattr(shard.volume, "publish", publish)
    for start in range(0, 20_000, 5_000):
        store.put_many(*rows(range(start, start + 5_000)))
        store.flush()
    assert len(seen) >= 3
    assert all(room > 0 for room in seen)


def test_what_cleaning_copies_ahead_never_counts_less_than_what_is_older(path, monkeypatch):
    """A key was deleted and put again behind a journal that is cleaned; then its second journal is packed alone."""
    monkeypatch.setattr(Upkeep, "tick", lambda _self, _now: None)
    for module in (choosing, packing):
        # As where what is free lies in short pieces.
        monkeypatch.setattr(module, "pieces", lambda _superblock, _shard: [1 << 20])
    again = range(500)
    store = siltstone.open(path, workers=0, shards=1, erase_block=1 << 20)
    upkeep, shard = upkeep_of(store)

    def close_journal():
        with store._core.shards.group._flush_lock:
            freeze(shard)

    store.put_many(*rows(again))
    store.put_many(*rows(range(10_000, 46_800)))
    close_journal()
    store.delete_many(hashes(again))
    store.put_many(*rows(range(60_000, 60_060)))
    close_journal()
    store.put_many(*rows(again, 1))
    store.put_many(*rows(range(70_000, 105_000)))
    close_journal()
    store.put_many(*rows(range(10_000, 27_000), 2))
    store.flush()
    assert upkeep.clean(shard, sparing=True, end=math.inf)
    store.put_many(*rows(range(70_000, 95_000), 2))
    store.flush()
    assert upkeep.pack(shard)
    store.flush()
    assert_holds(store, again, 1)
    store._core.abandon()
    with siltstone.open(path, workers=0) as store:
        assert_holds(store, again, 1)


def test_a_window_never_counts_less_than_nothing(store):
    """Records are deleted, and go with their hash store; what deletes them stays longer."""
    for start in (0, 1000, 2000, 3000):
        store.put_many(*rows(range(start, start + 1000)))
        store.incarnate()
        if start:
            # Of those in the hash store before: what deletes them is in one that stays longer.
            assert store.delete_many(hashes(range(start - 1000, start))).all()
        assert len(store) >= 0
    store.incarnate()
    store.incarnate()
    found = store.get_many(hashes(range(4000)))[0]
    assert found.tolist() == [number >= 3000 for number in range(4000)]
    assert 0 <= len(store) <= 1000


def test_what_cannot_be_dropped_is_all_there(store, monkeypatch):
    """Nothing is forgotten before the superblock can say so."""
    upkeep, shard = upkeep_of(store)
    store.put_many(*rows(range(1000)))
    with store._core.shards.group._flush_lock:
        freeze(shard)

    def full(**_only):
        raise DiskFullError("no space", needed=1)

    with monkeypatch.context() as patch:
        # The last that can fail before the superblock is written.
        patch.setattr(upkeep, "_flush", full)
        with pytest.raises(DiskFullError):
            upkeep.drop_oldest(shard)
    assert_holds(store, range(1000))
    assert len(store) == 1000
    assert upkeep.drop_oldest(shard)
    assert len(store) == 0


def test_flushes_do_not_wait_for_the_writing_of_a_checkpoint(faulty_store, faults):
    group = faulty_store._core.shards.group
    faulty_store.put_many(*rows(range(6000)))
    seen = []

    def hook(_inner, offset, _data):
        for extent in faulty_store._core.volume.superblock.extents:
            if extent.kind == KIND_CHECKPOINT and extent.offset <= offset < extent.offset + extent.length:
                free = group._flush_lock.acquire(blocking=False)
                seen.append(free)
                if free:
                    group._flush_lock.release()

    faults.write = hook
    group.upkeep.checkpoint([group.shards[0]])
    assert seen
    assert all(seen)
