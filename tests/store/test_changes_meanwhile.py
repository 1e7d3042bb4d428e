"""What is put and deleted while a hash store is made counts, and not what the hash store was made from."""

from __future__ import annotations

import pytest
from store_faults import at_call, failing, nothing
from store_media import Medium, create_settled, incarnate, open_settled
from store_records import assert_holds, digest, hashes, rows

import siltstone
from siltstone.errors import MediumError, SiltstoneError
from siltstone.format.superblock import KIND_HASH_STORE
from siltstone.shard.rolling import freeze


@pytest.fixture
def store(faulty_store):
    return faulty_store


def once_written(store, faults, act):
    """Do `act` once, when a hash store is being written: what goes into it is settled then."""

    def hook(_inner, offset, _data):
        for extent in store._core.volume.superblock.extents:
            if (
                extent.kind == KIND_HASH_STORE
                and extent.state == "empty"
                and 0 <= offset - extent.offset < extent.length
            ):
                faults.write = nothing
                act()

    faults.write = hook


def test_what_is_deleted_while_it_is_incarnated_stays_deleted(path, store, faults):
    store.put_many(*rows(range(1000)))

    def act():
        assert store.delete_many(hashes(range(100))).all()
        assert not store.delete(digest(1))
        # Overwritten in a journal that stays, then deleted.
        store.put_many(*rows(range(100, 200), version=1))
        assert store.delete_many(hashes(range(100, 200))).all()
        # Deleted, then put again.
        store.delete_many(hashes(range(200, 300)))
        store.put_many(*rows(range(200, 300), version=1))
        with store.batch() as batch:
            batch.delete_many(hashes(range(300, 400)))
            batch.put_many(*rows(range(350, 400), version=2))
            batch.delete_many(hashes(range(5000, 5100)))

    def holds(opened):
        assert not opened.get_many(hashes(range(200)))[0].any()
        assert not opened.get_many(hashes(range(300, 350)))[0].any()
        assert not opened.get_many(hashes(range(5000, 5100)))[0].any()
        assert opened.get(digest(7)) is None
        assert_holds(opened, range(200, 300), version=1)
        assert_holds(opened, range(350, 400), version=2)
        assert_holds(opened, range(400, 1000))

    once_written(store, faults, act)
    assert incarnate(store)
    assert faults.write is nothing
    holds(store)
    # Those that were put again count twice, until they are merged.
    assert 750 <= len(store) <= 900
    assert not store.delete_many(hashes(range(200))).any()
    store.put_many(*rows([0], version=3))
    store.delete(digest(0))
    holds(store)
    store.flush()
    store._core.abandon()
    with siltstone.open(path) as reopened:
        holds(reopened)
        reopened.incarnate()
        holds(reopened)
        assert len(reopened) == 750


@pytest.mark.parametrize("what", ["pack", "incarnate", "merge"])
def test_what_a_failed_flush_of_others_may_have_lost_is_not_relied_on(path, host, faults, what):
    """The next flush succeeds: the kernel has dropped the pages, and says so once."""
    create_settled(Medium(str(path)), host, shards=2)
    store = open_settled(Medium(f"faulty:{path}"), faults.host())
    group = store._core.shards.group
    for round_ in range(4):
        # Some stay as they are in the oldest journal.
        store.put_many(*rows(range(300 if round_ else 0, 2000), version=round_))
        if what == "merge":
            store.flush()
            for shard in group.shards.values():
                with group._flush_lock:
                    freeze(shard)
                group.upkeep.incarnate(shard)
    for shard in group.shards.values():
        with group._flush_lock:
            freeze(shard)
    store.flush()
    before = store._core.volume.superblock
    taken = {extent.id for extent in before.extents if extent.state == "empty"}
    told = []

    def hook(_inner, offset, _data):
        for extent in store._core.volume.superblock.extents:
            inside = 0 <= offset - extent.offset < extent.length
            if inside and extent.state == "empty" and extent.id not in taken:
                faults.write = nothing
                # Of the other shard: nothing of this one's journals is lost.
                store.put_many(*rows(range(5000, 5100)))
                faults.flush = at_call(1, failing("flush"))
                try:
                    group.flush(only=[group.shards[1]])
                except MediumError:
                    told.append("shard 1")

    faults.write = hook
    act = {"pack": group.upkeep.pack, "incarnate": group.upkeep.incarnate, "merge": group.upkeep.merge}[what]
    with pytest.raises(SiltstoneError):
        act(group.shards[0])
    assert told == ["shard 1"]
    after = store._core.volume.superblock
    assert after.hash_stores(0) == before.hash_stores(0)
    assert after.journals(0) == before.journals(0)
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, range(300))
        assert_holds(reopened, range(300, 2000), version=3)
