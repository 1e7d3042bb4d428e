"""What is put and deleted while a hash store is made counts, and not what the hash store was made from."""

from __future__ import annotations

import contextlib

import pytest
from store_faults import Faults, nothing
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, digest, hashes, rows

import siltstone
from siltstone.errors import SiltstoneError
from siltstone.format.superblock import KIND_HASH_STORE


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def store(path, host, faults):
    """A store of one shard whose housekeeping is done when the test says so."""
    create_settled(Medium(str(path)), host, shards=1)
    opened = open_settled(Medium(f"faulty:{path}"), faults.host())
    yield opened
    for hook in ("write", "flush", "discard", "grow"):
        setattr(faults, hook, nothing)
    with contextlib.suppress(SiltstoneError):
        opened.close()


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


def incarnate_once(store):
    group = store._core.shards.group
    with group._flush_lock:
        group.shards[0].freeze()
    assert group.incarnate(group.shards[0])


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
    incarnate_once(store)
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
