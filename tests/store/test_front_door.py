"""The front door of a store: what each call does, what it refuses, and what is there after opening again."""

from __future__ import annotations

import numpy as np
import pytest
from store_records import assert_holds, assert_lacks, digest, hashes, info, rows

import siltstone
from siltstone import HashInfo
from siltstone.errors import (
    AlreadyExistsError,
    BatchTooLargeError,
    ClosedError,
    ConfigError,
    EntryError,
    LogStoreFullError,
    NotFoundError,
    ReadOnlyError,
    SiltstoneError,
    StateError,
)

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


def test_the_last_put_wins_across_openings_and_journals(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        for version in range(4):
            store.put_many(*rows(range(10_000), version))
        assert store.info().journals > 2, "the test means to roll journals"
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


# ---- shapes and dtypes


def test_empty_arrays_are_allowed(store):
    nothing = np.empty((0, 32), np.uint8), np.empty(0, np.uint64), np.empty(0, np.uint64)
    store.put_many(*nothing)
    store.put_many([], [], [])
    assert len(store.delete_many(nothing[0])) == 0
    found, physical, logical = store.get_many(nothing[0])
    assert found.shape == physical.shape == logical.shape == (0,)
    assert (found.dtype, physical.dtype, logical.dtype) == (np.bool_, np.uint64, np.uint64)
    with store.batch() as batch:
        batch.put_many(*nothing)
        batch.delete_many(nothing[0])
    with store.batch():
        pass
    store.flush()
    assert len(store) == 0


def test_arrays_need_not_be_contiguous(path):
    digests, physical, logical = rows(range(4000))
    wide = np.zeros((8000, 40), np.uint8)
    wide[::2, 4:36] = digests
    with siltstone.open(path, **SMALL) as store:
        store.put_many(wide[::2, 4:36], np.repeat(physical, 3)[::3], logical[::-1][::-1])
        assert_holds(store, range(4000))
        found, *_ = store.get_many(np.asfortranarray(digests))
        assert found.all()
        assert store.delete_many(wide[::-2, 4:36][::-1][1:11]).all() or True
    with siltstone.open(path) as store:
        assert len(store) <= 4000


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.int8, ">u8", "<i2"])
def test_any_integers_serve_as_sectors(store, dtype):
    sectors = np.arange(100).astype(dtype)
    store.put_many(hashes(range(100)), sectors, sectors)
    _found, physical, logical = store.get_many(hashes(range(100)))
    np.testing.assert_array_equal(physical, np.arange(100))
    np.testing.assert_array_equal(logical, np.arange(100))


def test_hashes_may_be_byte_strings(store):
    column = np.array([digest(number) for number in range(50)], dtype="S32")
    store.put_many(column.view("V32"), np.arange(50), np.arange(50))
    assert store.get_many(column)[0].all()


GOOD = (hashes(range(3)), np.arange(3, dtype=np.uint64), np.arange(3, dtype=np.uint64))
WRONG_COLUMNS = {
    "no arrays": (),
    "one array missing": GOOD[:2],
    "one array too many": (*GOOD, GOOD[1]),
    "hashes of 31 bytes": (GOOD[0][:, :31], *GOOD[1:]),
    "hashes flat": (GOOD[0].ravel(), *GOOD[1:]),
    "hashes of three dimensions": (GOOD[0][None], *GOOD[1:]),
    "hashes of int8": (GOOD[0].view(np.int8), *GOOD[1:]),
    "hashes of uint64": (GOOD[0].view(np.uint64), *GOOD[1:]),
    "hashes that are text": (np.array(["a" * 32] * 3), *GOOD[1:]),
    "hashes that are objects": (np.array([b"a" * 32] * 3, dtype=object), *GOOD[1:]),
    "hashes that are one number": (5, *GOOD[1:]),
    "hashes that are None": (None, *GOOD[1:]),
    "ragged hashes": ([[1, 2], [3]], *GOOD[1:]),
    "two sectors for three hashes": (GOOD[0], GOOD[1][:2], GOOD[2]),
    "sectors of two dimensions": (GOOD[0], GOOD[1][:, None], GOOD[2]),
    "sectors that are floats": (GOOD[0], GOOD[1].astype(float), GOOD[2]),
    "sectors that are text": (GOOD[0], np.array(["1", "2", "3"]), GOOD[2]),
    "sectors that are bools": (GOOD[0], GOOD[1], np.array([True, False, True])),
    "sectors that are dates": (GOOD[0], GOOD[1], np.array([1, 2, 3], "M8[s]")),
    "negative sectors": (GOOD[0], GOOD[1], np.array([1, -1, 2])),
    "sectors beyond 64 bits": (GOOD[0], GOOD[1], [1, 1 << 64, 2]),
    "one sector for all": (GOOD[0], 5, GOOD[2]),
    "sectors that are None": (GOOD[0], [None] * 3, GOOD[2]),
    "ragged sectors": (GOOD[0], [[1], [2, 3], [4]], GOOD[2]),
}


@pytest.mark.parametrize("where", ["store", "batch"])
@pytest.mark.parametrize("columns", WRONG_COLUMNS.values(), ids=WRONG_COLUMNS.keys())
def test_wrong_columns_are_refused_and_nothing_is_put(store, columns, where):
    with pytest.raises(EntryError) as caught:
        if where == "store":
            store.put_many(*columns)
        else:
            with store.batch() as batch:
                batch.put(info(77))
                batch.put_many(*columns)
    assert "hash_info" in str(caught.value)
    assert len(store) == 0


WRONG_KEYS = {name: columns[0] for name, columns in WRONG_COLUMNS.items() if name.startswith(("hashes", "ragged h"))}


@pytest.mark.parametrize("call", ["get_many", "delete_many"])
@pytest.mark.parametrize("keys", WRONG_KEYS.values(), ids=WRONG_KEYS.keys())
def test_wrong_keys_are_refused(store, keys, call):
    store.put_many(*GOOD)
    with pytest.raises(EntryError, match="hash_info"):
        getattr(store, call)(keys)
    assert len(store) == 3


@pytest.mark.parametrize("call", ["get", "delete"])
@pytest.mark.parametrize("key", [b"", b"short", bytes(31), bytes(33), bytes(64)])
def test_a_key_of_another_length_is_refused(store, key, call):
    with pytest.raises(EntryError) as caught:
        getattr(store, call)(key)
    assert "32" in str(caught.value)


@pytest.mark.parametrize("call", ["get", "delete"])
def test_any_buffer_serves_as_a_key(store, call):
    for kind in (bytes, bytearray, memoryview, lambda key: np.frombuffer(key, np.uint8)):
        store.put(info(1))
        assert getattr(store, call)(kind(digest(1)))


@pytest.mark.parametrize("record", [None, 5, b"x" * 48, (bytes(32), 1, 2), object()])
def test_a_record_of_no_known_type_is_refused(store, record):
    with pytest.raises(SiltstoneError) as caught:
        store.put(record)
    assert type(record).__name__ in str(caught.value)
    assert len(store) == 0


@pytest.mark.parametrize(
    "fields",
    [
        (bytes(31), 0, 0),
        (bytes(33), 0, 0),
        (b"", 0, 0),
        ("a" * 32, 0, 0),
        (bytearray(32), 0, 0),
        (None, 0, 0),
        (bytes(32), -1, 0),
        (bytes(32), 1 << 64, 0),
        (bytes(32), 0, -1),
        (bytes(32), 0, 1 << 64),
        (bytes(32), 1.0, 0),
        (bytes(32), True, 0),
        (bytes(32), 0, None),
    ],
)
def test_a_record_with_a_wrong_field_cannot_be_made(fields):
    with pytest.raises(EntryError) as caught:
        HashInfo(*fields)
    assert caught.value.field in ("hash", "physical_sect", "first_logical_sect")
    assert caught.value.field in str(caught.value)


def test_an_unknown_entry_type_is_named(store):
    for call in (
        lambda: store.get(bytes(32), entry_type="nonesuch"),
        lambda: store.get_many(GOOD[0], entry_type="nonesuch"),
        lambda: store.put_many(*GOOD, entry_type="nonesuch"),
        lambda: store.delete(bytes(32), entry_type="nonesuch"),
    ):
        with pytest.raises(SiltstoneError, match="nonesuch"):
            call()


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


def test_a_batch_too_large_is_refused_before_anything_is_written(path):
    with siltstone.open(path, shards=1, **SMALL) as store:
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


# ---- large puts, shards, memory


@pytest.mark.parametrize("shards", [1, 2, 8, 64])
def test_any_number_of_shards_serves(path, shards):
    with siltstone.open(path, shards=shards, **SMALL) as store:
        store.put_many(*rows(range(20_000)))
        store.delete_many(hashes(range(0, 20_000, 5)))
        held = {extent.shard for extent in store.info().extents if extent.used > 8192}
        assert held == set(range(shards)), "each shard has some"
        assert store.info().shards == shards
    # What is asked for later does not matter.
    with siltstone.open(path, shards=3) as store:
        assert store.info().shards == shards
        assert len(store) == 16_000
        assert_lacks(store, range(0, 20_000, 5))
        assert_holds(store, [number for number in range(20_000) if number % 5])


def test_a_million_rows_in_one_call(path):
    with siltstone.open(path, **SMALL) as store:
        journals = store.info().journals
        store.put_many(*rows(np.arange(1_000_000)))
        assert store.info().journals > journals, "the test means to roll journals"
        assert_holds(store, np.arange(1_000_000))
        store.flush()
        # Bytes a record, journals up to their end.
        assert store.info().journal_bytes / 1_000_000 <= 51.2
    with siltstone.open(path) as store:
        assert len(store) == 1_000_000
        assert_holds(store, np.arange(1_000_000))
        assert_lacks(store, np.arange(1_000_000, 1_010_000))


def put_until_full(store, start, step=2000):
    """Put runs of records until the log store is full; the first number that was not put, and the error."""
    while True:
        try:
            store.put_many(*rows(range(start, start + step)))
        except LogStoreFullError as error:
            return start, error
        start += step


@pytest.mark.parametrize("crash", [False, True])
def test_a_full_log_store_says_so_and_loses_nothing(path, crash):
    store = siltstone.open(path, shards=1, index_memory=MIB, **SMALL)
    full_at, error = put_until_full(store, 0)
    assert full_at >= 2000
    assert error.limit == store.info().index_records_max
    assert "index_memory" in str(error)
    assert len(store) == full_at
    assert_holds(store, range(full_at))
    assert_lacks(store, range(full_at, full_at + 2000))
    # One key more may still fit; deleting always works, and gives room.
    store.delete_many(hashes(range(1000)))
    store.flush()
    store._core.abandon() if crash else store.close()

    with siltstone.open(path, index_memory=MIB) as store:
        assert_holds(store, range(1000, full_at))
        assert_lacks(store, range(1000))
        store.put_many(*rows(range(500)))
        assert_holds(store, range(500))
        store.delete_many(hashes(range(500)))
    with siltstone.open(path, index_memory=4 * MIB) as store:
        assert_holds(store, range(1000, full_at))
        store.put_many(*rows(range(full_at, full_at + 2000)))
        assert_holds(store, range(1000, full_at + 2000))


def test_a_store_larger_than_the_budget_opens_and_is_read(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(np.arange(300_000)))
    with siltstone.open(path, index_memory=MIB) as store:
        assert len(store) == 300_000
        assert_holds(store, np.arange(300_000))
        with pytest.raises(LogStoreFullError):
            store.put(info(300_001))
        assert store.delete(digest(5))
        store.flush()
    with siltstone.open(path) as store:
        assert len(store) == 299_999
        store.put(info(5))
        assert_holds(store, np.arange(300_000))


# ---- a closed store


def closed_calls(store):
    return {
        "put": lambda: store.put(info(1)),
        "put_many": lambda: store.put_many(*GOOD),
        "get": lambda: store.get(digest(1)),
        "get_many": lambda: store.get_many(GOOD[0]),
        "delete": lambda: store.delete(digest(1)),
        "delete_many": lambda: store.delete_many(GOOD[0]),
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


# ---- opening


def test_a_store_is_made_only_where_asked_for(path):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(NotFoundError, match=r"store\.silt"):
            siltstone.open(path, **options)
        assert not path.exists()
    siltstone.create(path, shards=2, **SMALL)
    with siltstone.open(path, create=False) as store:
        assert store.info().shards == 2


def test_create_destroys_only_where_asked_for(path):
    siltstone.create(path, **SMALL)
    with siltstone.open(path) as store:
        store.put(info(1))
        uuid = store.info().uuid
    before = path.read_bytes()
    with pytest.raises(AlreadyExistsError, match=r"store\.silt"):
        siltstone.create(path)
    assert path.read_bytes() == before
    siltstone.create(path, overwrite=True, **SMALL)
    with siltstone.open(path) as store:
        assert store.get(digest(1)) is None
        assert store.info().uuid != uuid


@pytest.mark.parametrize(
    "options",
    [
        {"shards": 0},
        {"shards": -1},
        {"shards": 5000},
        {"index_memory": 100},
        {"missing_types": "ignore"},
        {"workers": 3},
        {"erase_block": 1000},
        {"erase_block": 32 * 1024},
        {"erase_block": 3 * 64 * 1024},
        {"backend_options": {"nonesuch": 1}},
    ],
    ids=str,
)
def test_a_wrong_option_is_named_and_nothing_is_made(path, options):
    with pytest.raises(ConfigError) as caught:
        siltstone.open(path, **options)
    name = next(iter(options))
    assert ("nonesuch" if name == "backend_options" else name) in str(caught.value)
    assert not path.exists()


def test_a_configuration_opens_a_store(path, tmp_path):
    config = tmp_path / "store.toml"
    config.write_text(f'[volume]\ntarget = "{path}"\nshards = 2\n\n[store]\nindex_memory = "8 MiB"\n')
    with siltstone.open(config) as store:
        store.put(info(1))
        assert store.info().shards == 2
    with siltstone.open(path, read_only=True) as store:
        assert_holds(store, [1])


# ---- facts


def test_info_gives_the_figures(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(1000)))
        store.flush()
        facts = store.info()
        assert (facts.records, facts.shards, facts.read_only, facts.clean) == (1000, 2, False, True)
        assert facts.url.endswith("store.silt")
        assert facts.volume_bytes == path.stat().st_size
        assert facts.journal_bytes == sum(extent.used for extent in facts.extents)
        # Each of two shards: the log clusters that its rows fill (81 a cluster), and the two slots.
        assert 12 * 4096 < facts.journal_bytes <= (1000 // 81 + 1 + 2 * 2) * 4096
        assert [known["name"] for known in facts.entry_types] == ["hash_info"]
        assert facts.index_bytes > 0
        offset = MIB
        for extent in facts.extents:
            assert extent.offset == offset
            offset += extent.length
    with siltstone.open(path) as store:
        again = store.info()
        assert (again.uuid, again.created, again.records) == (facts.uuid, facts.created, 1000)
        assert again.epoch > facts.epoch
        assert again.sequence > facts.sequence
        assert again.clean


def test_recovery_says_what_was_found(path):
    with siltstone.open(path, shards=1, **SMALL) as store:
        assert store.recovery == ()
        store.put_many(*rows(range(100)))
    store = siltstone.open(path)
    assert [found.reason for found in store.recovery] == [""]
    store.put_many(*rows(range(100, 200)))
    store.flush()
    store.put_many(*rows(range(200, 1000)))
    store._core.abandon()
    with siltstone.open(path) as store:
        (found,) = store.recovery
        assert found.shard == 0
        assert found.cut_entries < 800
        assert (found.cut_entries > 0) == (found.reason != "")
        assert found.durable >= (1, 0)
        assert store.info().recovery[0].cut_entries == found.cut_entries
        assert_holds(store, range(200))
        assert_lacks(store, range(200, 1000))


def test_progress_is_told_while_journals_are_replayed(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(50_000)))
    told = []
    with siltstone.open(path, progress=told.append):
        pass
    assert told[-1].records == 50_000
    assert [step.bytes_done for step in told] == sorted(step.bytes_done for step in told)
    assert told[-1].bytes_done <= told[-1].bytes_total


def test_stores_that_are_reopened_do_not_grow(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(200)))
    sizes = set()
    for crash in [False, True] * 10:
        store = siltstone.open(path)
        store.put(info(1))
        store.flush()
        store._core.abandon() if crash else store.close()
        sizes.add(path.stat().st_size)
        assert len(sizes) <= 2, "an opening or a crash takes space for good"
    with siltstone.open(path) as store:
        assert_holds(store, range(200))
