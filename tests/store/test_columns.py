"""What the calls of a store take: arrays of many kinds, and clear errors for all others."""

from __future__ import annotations

import numpy as np
import pytest
from store_records import assert_holds, digest, hashes, info, rows

import siltstone
from siltstone import HashInfo
from siltstone.errors import EntryError, SiltstoneError

SMALL = {"erase_block": 64 * 1024}


@pytest.fixture
def store(path):
    with siltstone.open(path, **SMALL) as opened:
        yield opened


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
        assert store.delete_many(wide[:2000:2, 4:36]).all()
    with siltstone.open(path) as store:
        assert_holds(store, range(1000, 4000))
        assert len(store) == 3000


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


WRONG_KEYS = {
    name: columns[0] for name, columns in WRONG_COLUMNS.items() if name.startswith(("hashes", "ragged h"))
}


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
