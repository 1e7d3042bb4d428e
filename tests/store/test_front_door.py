"""The front door of a store: what each call does and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from store_media import Medium, open_settled
from store_records import assert_holds, assert_lacks, digest, hashes, info, rows

import siltstone
from siltstone import HashInfo
from siltstone.errors import BatchTooLargeError, ClosedError, ReadOnlyError, StateError

SMALL = {"erase_block": 64 * 1024}
MIB = 1 << 20


@pytest.fixture
def store(path):
    with siltstone.open(path, **SMALL) as opened:
        yield opened


# ---- putting and asking


def test_what_was_put_is_got(store):
    record = info(1)
    assert store.get(record.hash) is None
    store.put(record)
    assert store.get(record.hash) == record
    assert store.get(digest(2)) is None


@pytest.mark.parametrize("sector", [0, 1, (1 << 32) - 1, 1 << 63, (1 << 64) - 1])
def test_every_sector_number_comes_back(path, sector):
    record = HashInfo(digest(1), sector, (1 << 64) - 1 - sector)
    with siltstone.open(path, **SMALL) as store:
        store.put(record)
        assert store.get(record.hash) == record
    with siltstone.open(path) as store:
        assert store.get(record.hash) == record
        found, physical, logical = store.get_many(np.frombuffer(record.hash, np.uint8)[None])
        assert (found[0], physical[0], logical[0]) == (True, sector, (1 << 64) - 1 - sector)


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x00" * 31 + b"\x01"])
def test_no_hash_is_special(path, key):
    with siltstone.open(path, **SMALL) as store:
        store.put(HashInfo(key, 7, 8))
    with siltstone.open(path) as store:
        assert store.get(key) == HashInfo(key, 7, 8)
        assert store.delete(key)
    with siltstone.open(path) as store:
        assert store.get(key) is None


def test_the_last_put_wins(store):
    store.put(info(1))
    store.put(info(1, version=1))
    assert store.get(digest(1)) == info(1, version=1)
    assert len(store) == 1


def test_the_last_of_equal_hashes_in_one_call_wins(path):
    numbers = np.tile(np.arange(500), 3)
    digests = hashes(numbers)
    physical = np.arange(1500, dtype=np.uint64)
    with siltstone.open(path, **SMALL) as store:
        store.put_many(digests, physical, physical + np.uint64(1))
        assert len(store) == 500
    for _opening in range(2):
        with siltstone.open(path) as store:
            found, got_physical, got_logical = store.get_many(hashes(range(500)))
            assert found.all()
            np.testing.assert_array_equal(got_physical, np.arange(1000, 1500))
            np.testing.assert_array_equal(got_logical, np.arange(1001, 1501))
            assert len(store) == 500


def active_journals(store):
    """Where the journals that take the writes lie, and their lives."""
    return {(each.offset, each.generation) for each in store.info().extents if each.state == "active"}


def test_the_last_put_wins_across_openings_and_journals(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        first = active_journals(store)
        for version in range(4):
            store.put_many(*rows(range(10_000), version))
        # Those that were rolled from may have been packed by now: all in them was put again.
        assert not first & active_journals(store), "the test means to roll journals"
    for version in range(4, 7):
        with siltstone.open(path) as store:
            assert_holds(store, range(10_000), version - 1)
            store.put_many(*rows(range(10_000), version))
            assert_holds(store, range(10_000), version)
            assert len(store) == 10_000


def test_lookups_answer_each_key_in_its_place(store):
    store.put_many(*rows(range(0, 2000, 2)))
    order = np.random.default_rng(7).permutation(2000)
    found, physical, logical = store.get_many(hashes(order))
    np.testing.assert_array_equal(found, order % 2 == 0)
    wanted = np.where(found, rows(order)[1], np.uint64(0))
    np.testing.assert_array_equal(physical, wanted)
    np.testing.assert_array_equal(logical, np.where(found, ~wanted, np.uint64(0)))
    assert (found.dtype, physical.dtype, logical.dtype) == (np.bool_, np.uint64, np.uint64)


def test_what_is_returned_is_the_callers(store):
    store.put_many(*rows(range(10)))
    for array in store.get_many(hashes(range(10))):
        array[:] = 0
    assert_holds(store, range(10))


def test_what_was_given_may_be_changed_afterwards(path):
    digests, physical, logical = rows(range(3000))
    with siltstone.open(path, **SMALL) as store:
        store.put_many(digests, physical, logical)
        digests[:], physical[:], logical[:] = 0, 0, 0
        assert_holds(store, range(3000))
    with siltstone.open(path) as store:
        assert_holds(store, range(3000))


# ---- deleting


def test_what_was_deleted_is_gone(store):
    store.put_many(*rows(range(10)))
    assert store.delete(digest(3)) is True
    assert store.delete(digest(3)) is False
    assert store.get(digest(3)) is None
    found = store.delete_many(hashes([2, 3, 4, 99]))
    np.testing.assert_array_equal(found, [True, False, True, False])
    assert_lacks(store, [2, 3, 4])
    assert_holds(store, [0, 1, 5, 6, 7, 8, 9])
    assert len(store) == 7


def test_what_was_deleted_can_be_put_again(path):
    with siltstone.open(path, **SMALL) as store:
        store.put(info(1))
        store.delete(digest(1))
        store.put(info(1, version=1))
    with siltstone.open(path) as store:
        assert store.get(digest(1)) == info(1, version=1)


@pytest.mark.parametrize("crash", [False, True])
def test_a_deletion_survives_a_restart(path, crash):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(20_000)))
    store = siltstone.open(path)
    store.delete_many(hashes(range(0, 20_000, 2)))
    store.flush()
    store._core.abandon() if crash else store.close()
    for _opening in range(2):
        with siltstone.open(path) as store:
            assert_lacks(store, range(0, 20_000, 2))
            assert_holds(store, range(1, 20_000, 2))
            assert len(store) == 10_000


# ---- batches


def test_a_batch_is_applied_when_its_block_ends(store):
    store.put(info(1))
    store.put(info(2))
    with store.batch() as batch:
        batch.put(info(3))
        batch.put_many(*rows(range(10, 20)))
        batch.delete(digest(1))
        batch.delete_many(hashes([2, 99]))
        assert len(store) == 2
        assert store.get(digest(3)) is None
        assert store.get(digest(1)) is not None
    assert_holds(store, [3, *range(10, 20)])
    assert_lacks(store, [1, 2, 99])


def test_a_batch_keeps_the_order_of_its_calls(path):
    with siltstone.open(path, **SMALL) as store:
        with store.batch() as batch:
            batch.put(info(1))
            batch.delete(digest(1))
            batch.put(info(2))
            batch.delete(digest(2))
            batch.put(info(2, version=5))
        assert store.get(digest(1)) is None
        assert store.get(digest(2)) == info(2, version=5)
    with siltstone.open(path) as store:
        assert store.get(digest(1)) is None
        assert store.get(digest(2)) == info(2, version=5)


def test_a_batch_that_ends_with_an_error_is_forgotten(store):
    class Oops(Exception):
        pass

    with pytest.raises(Oops), store.batch() as batch:
        batch.put(info(1))
        raise Oops
    assert len(store) == 0
    store.put(info(2))
    assert len(store) == 1


def test_a_batch_that_has_ended_takes_nothing_more(store):
    with store.batch() as batch:
        batch.put(info(1))
    with pytest.raises(StateError):
        batch.put(info(2))
    with pytest.raises(StateError):
        batch.put_many(*rows(range(5)))
    with pytest.raises(StateError):
        batch.delete(digest(1))


def test_a_batch_too_large_is_refused_before_anything_is_written(path, host):
    # Without a housekeeper, whose idle note would be a write.
    with open_settled(Medium(str(path)), host, shards=1) as store:
        store.put_many(*rows(range(100)))
        store.flush()
        before = store.info()
        contents = path.read_bytes()
        batch = store.batch()
        with pytest.raises(BatchTooLargeError) as caught, batch:
            batch.delete(digest(0))
            batch.put_many(*rows(range(1_400_000)))
        assert caught.value.size > caught.value.limit == 64 * MIB - 8192
        assert str(caught.value.size) in str(caught.value)
        assert store.info() == before
        assert path.read_bytes() == contents
        assert_holds(store, range(100))
        store.put(info(7, version=1))
        store.flush()
    with siltstone.open(path) as store:
        assert store.get(digest(7)) == info(7, version=1)
        assert len(store) == 100


def test_a_batch_larger_than_the_journals_so_far_goes_whole_into_a_larger_one(path):
    with siltstone.open(path, shards=1, **SMALL) as store:
        store.put(info(1_000_000))
        with store.batch() as batch:
            batch.put_many(*rows(range(50_000)))
        assert_holds(store, range(50_000))
        sizes = [extent.length for extent in store.info().extents if extent.kind == "journal"]
        assert max(sizes) >= 50_000 * 50
        assert_holds(store, [1_000_000])
    with siltstone.open(path) as store:
        assert_holds(store, range(50_000))
        assert len(store) == 50_001


# ---- a closed store


def closed_calls(store):
    return {
        "put": lambda: store.put(info(1)),
        "put_many": lambda: store.put_many(*rows(range(3))),
        "get": lambda: store.get(digest(1)),
        "get_many": lambda: store.get_many(hashes(range(3))),
        "delete": lambda: store.delete(digest(1)),
        "delete_many": lambda: store.delete_many(hashes(range(3))),
        "batch": lambda: store.batch(),
        "flush": lambda: store.flush(),
        "info": lambda: store.info(),
        "len": lambda: len(store),
    }


def test_a_closed_store_says_so(path):
    with siltstone.open(path, **SMALL) as store:
        store.put(info(1))
        batch = store.batch()
        batch.put(info(2))
    for call in closed_calls(store).values():
        with pytest.raises(ClosedError, match=r"store\.silt"):
            call()
    with pytest.raises(ClosedError), batch:
        pass
    store.close()
    assert "closed" in repr(store)
    with siltstone.open(path) as store:
        assert len(store) == 1


def test_a_store_is_closed_when_its_block_ends_with_an_error(path):
    with pytest.raises(ZeroDivisionError), siltstone.open(path, **SMALL) as store:
        store.put(info(1))
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        store.get(digest(1))
    with siltstone.open(path) as store:
        assert store.info().clean
        assert_holds(store, [1])


# ---- read-only


def test_a_read_only_store_answers_and_takes_nothing(path):
    with siltstone.open(path, **SMALL) as store:
        store.put_many(*rows(range(1000)))
    before = path.read_bytes()
    with siltstone.open(path, read_only=True) as store:
        assert store.read_only
        assert "read_only" in store.read_only_reason
        assert store.info().read_only
        assert len(store) == 1000
        assert_holds(store, range(1000))
        assert store.get(digest(5)) == info(5)
        calls = closed_calls(store)
        for name in ("put", "put_many", "delete", "delete_many", "batch", "flush"):
            with pytest.raises(ReadOnlyError, match="read_only"):
                calls[name]()
        assert_holds(store, range(1000))
    assert path.read_bytes() == before


def test_reading_a_store_that_was_not_closed_writes_nothing_and_says_so(path):
    store = siltstone.open(path, **SMALL)
    store.put_many(*rows(range(1000)))
    store.flush()
    store._core.abandon()
    before = path.read_bytes()
    with siltstone.open(path, read_only=True) as store:
        assert store.info().clean is False
        assert len(store.recovery) == 8
        assert_holds(store, range(1000))
    assert path.read_bytes() == before


def test_a_writer_is_not_read_only(store):
    assert not store.read_only
    assert store.read_only_reason == ""
    assert "open" in repr(store)
