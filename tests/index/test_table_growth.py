"""How full the index gets before it grows, that growth loses nothing, and what happens where it can grow no further."""

from __future__ import annotations

import numpy as np
import pytest
from indexed_log import HASH, KEYLESS, SECRET, TYPES, IndexedLog, deletion, entry, packed

from siltstone.index.layout import JOURNALS_MAX, SLOT_BYTES, layout_bytes
from siltstone.index.routing import Router
from siltstone.index.table import LogIndex
from siltstone.index.types import KeyTypes
from siltstone.lookup.reader import Reader


def random_keys(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def entries_of(keys: np.ndarray, payload: np.ndarray | None = None) -> np.ndarray:
    """Packed HASH entries; the 16 bytes behind each key are its first 16 again where no payload is given."""
    rows = np.empty((len(keys), 50), np.uint8)
    rows[:, 0], rows[:, 1] = 50, HASH
    rows[:, 2:34] = keys
    rows[:, 34:] = keys[:, :16] if payload is None else payload
    return rows


def put_all(log: IndexedLog, keys: np.ndarray, batch: int = 10_000) -> None:
    rows = entries_of(keys)
    for start in range(0, len(rows), batch):
        log.apply(rows[start : start + batch].ravel())


def assert_all_there(log: IndexedLog, keys: np.ndarray) -> None:
    found, payloads = log.reader.get_many(HASH, keys, 48)
    assert found.all()
    assert (payloads[:, :32] == keys).all()
    assert (payloads[:, 32:] == keys[:, :16]).all()


def test_a_segment_is_more_than_nine_tenths_full_before_it_grows():
    log = IndexedLog(segments=1, window_bytes=1 << 20, journal_bytes=1 << 23)
    rows = entries_of(random_keys(60_000))
    fills, size = [], log.index.bytes
    for row in rows:
        records = log.index.records
        log.apply(row)
        if log.index.bytes != size:
            fills.append((records, records / (size // SLOT_BYTES)))
            # A quarter more each time: neither a doubling of memory nor a growth at every turn.
            assert size < log.index.bytes <= size * 1.5
            size = log.index.bytes
    assert len(fills) > 15
    assert [fill for _records, fill in fills if fill < 0.9] == []
    assert log.index.bytes / log.index.records < 10.8


@pytest.mark.parametrize("shared", [False, True])
def test_nothing_is_lost_through_many_growths(shared):
    log = IndexedLog(segments=4, window_bytes=1 << 19, journal_bytes=1 << 23, shared=shared)
    keys = random_keys(100_000, seed=2)
    before = log.index.bytes
    for start in range(0, len(keys), 5000):
        put_all(log, keys[start : start + 5000])
        assert log.index.records == start + 5000
        assert_all_there(log, keys[: start + 5000])
    assert log.index.bytes > 50 * before
    missing = random_keys(20_000, seed=3)
    found, payloads = log.reader.get_many(HASH, missing, 48)
    assert not found.any()
    assert not payloads.any()


def test_a_million_and_a_half_keys_are_all_found():
    log = IndexedLog(segments=256, window_bytes=1 << 18, journal_bytes=1 << 26)
    keys = random_keys(1_500_000, seed=4)
    put_all(log, keys, batch=100_000)
    assert log.index.records == len(keys)
    assert_all_there(log, keys)
    assert log.index.bytes / log.index.records < 10
    missing = random_keys(500_000, seed=5)
    assert not log.reader.get_many(HASH, missing, 48)[0].any()
    # Half of them go; what is left is found, what went is not.
    for start in range(0, 750_000, 50_000):
        rows = np.empty((50_000, 35), np.uint8)
        rows[:, 0], rows[:, 1], rows[:, 2] = 35, 0x04, HASH
        rows[:, 3:] = keys[start : start + 50_000]
        assert log.apply(rows.ravel()) == 0
    assert log.index.records == 750_000
    assert not log.index.states_of(HASH, keys[:750_000]).any()
    assert_all_there(log, keys[750_000:])


def test_space_of_deleted_keys_is_used_again():
    log = IndexedLog(segments=1, window_bytes=1 << 18, journal_bytes=1 << 26)
    keys = random_keys(2000, seed=6)
    put_all(log, keys)
    size = log.index.bytes
    for number in range(60):
        fresh = random_keys(1000, seed=100 + number)
        put_all(log, fresh)
        log.apply(packed(deletion(HASH, key.tobytes()) for key in fresh))
    assert log.index.records == 2000
    assert log.index.bytes <= 2 * size
    assert_all_there(log, keys)


def test_of_equal_keys_the_last_wins():
    log = IndexedLog()
    key = bytes(range(32))
    batch = [entry(HASH, key + bytes([number]) * 16) for number in range(200)]
    log.apply(packed(batch))
    assert log.get(HASH, key) == key + bytes([199]) * 16
    assert log.index.records == 1
    log.apply(packed([deletion(HASH, key), entry(HASH, key + b"a" * 16), deletion(HASH, key)]))
    assert log.get(HASH, key) is None
    assert log.index.records == 0
    log.apply(packed([deletion(HASH, key), entry(HASH, key + b"b" * 16)]))
    assert log.get(HASH, key) == key + b"b" * 16


def test_the_same_key_bytes_under_two_types_are_two_keys():
    types = {HASH: (0, 32), 0x40: (0, 32)}
    log = IndexedLog(types=types)
    key = bytes(range(32))
    log.apply(packed([entry(HASH, key + b"a" * 16), entry(0x40, key + b"b")]))
    assert log.get(HASH, key) == key + b"a" * 16
    assert log.get(0x40, key) == key + b"b"
    log.apply(packed([deletion(HASH, key)]))
    assert log.get(HASH, key) is None
    assert log.get(0x40, key) == key + b"b"


def test_entries_without_a_key_are_counted_and_kept_out():
    log = IndexedLog()
    batch = [entry(KEYLESS, b"x"), entry(HASH, bytes(48)), entry(KEYLESS, b""), entry(0x99, bytes(200))]
    assert log.apply(packed(batch)) == 3
    assert log.index.records == 1


def test_a_payload_of_another_size_is_no_answer_to_a_batch():
    log = IndexedLog(types={0x40: (0, 4)})
    log.apply(packed([entry(0x40, b"key1....."), entry(0x40, b"key2")]))
    keys = np.frombuffer(b"key1key2key3", np.uint8).reshape(3, 4)
    found, payloads = log.reader.get_many(0x40, keys, 4)
    assert found.tolist() == [False, True, False]
    assert payloads.tobytes() == bytes(4) + b"key2" + bytes(4)


# ---- where it ends


def test_where_a_segment_can_grow_no_further_the_index_stays_whole():
    log = IndexedLog(segments=1, window_bytes=16_384, journal_bytes=1 << 22)
    keys = random_keys(4000, seed=7)
    rows = entries_of(keys)
    applied = 0
    with pytest.raises(MemoryError, match="window"):
        for row in rows:
            log.apply(row)
            applied += 1
    slots = 16_384 // SLOT_BYTES
    assert 0.6 * slots < applied == log.index.records <= slots
    assert_all_there(log, keys[:applied])
    assert not log.reader.get_many(HASH, keys[applied:], 48)[0].any()
    # What is there can still be overwritten and deleted, and what was freed be used.
    log.apply(entries_of(keys[:100], np.full((100, 16), 9, np.uint8)).ravel())
    found, payloads = log.reader.get_many(HASH, keys[:100], 48)
    assert found.all()
    assert (payloads[:, 32:] == 9).all()
    with pytest.raises(MemoryError):
        log.apply(rows[applied])
    log.apply(packed(deletion(HASH, key.tobytes()) for key in keys[:200]))
    assert log.index.records == applied - 200
    put_all(log, keys[:100])
    assert_all_there(log, keys[:applied][200:])
    assert_all_there(log, keys[:100])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segments": 0}, "segments"),
        ({"segments": 3}, "segments"),
        ({"segments": 131_072}, "segments"),
        ({"window_bytes": 0}, "window"),
        ({"window_bytes": 5000}, "window"),
        ({"secret": bytes(15)}, "secret"),
        ({"memory": bytearray(100)}, "memory"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changed, message):
    shape = {"segments": 2, "window_bytes": 4096, "secret": SECRET, **changed}
    memory = changed.get("memory", bytearray(layout_bytes(2, 4096)))
    with pytest.raises(ValueError, match=message):
        LogIndex(memory, KeyTypes(TYPES), shape["secret"], shape["segments"], shape["window_bytes"])


@pytest.mark.parametrize("number", [-1, JOURNALS_MAX])
def test_a_journal_number_out_of_range_is_refused(number):
    log = IndexedLog()
    for refused in (
        lambda: log.index.attach(number, bytes(8192)),
        lambda: log.index.detach(number),
        lambda: log.index.publish_tail(number, 0, bytes(4096), 0),
        lambda: log.index.publish_end(number, 0, None),
        lambda: log.index.apply(number, packed([entry(HASH, bytes(48))]), np.zeros(1, np.uint64)),
        lambda: log.index.apply_clusters(number, bytes(4096), 0, 4096),
    ):
        with pytest.raises(ValueError, match=str(number)):
            refused()


def test_a_journal_larger_than_a_place_can_say_is_refused():
    log = IndexedLog()
    with pytest.raises(ValueError, match=str((1 << 26) + 1)):
        log.index.attach(1, np.zeros((1 << 26) + 1, np.uint8))


# ---- many shards


def test_a_reader_of_many_shards_asks_the_right_one():
    shards = [IndexedLog(segments=2, journal_bytes=1 << 22) for _ in range(5)]
    router = Router(KeyTypes(TYPES), SECRET, len(shards))
    keys = random_keys(20_000, seed=8)
    stream, counts = router.route(HASH, np.ascontiguousarray(entries_of(keys)[:, 2:]))
    ends = np.cumsum(counts)
    for shard, end, count in zip(shards, ends.tolist(), counts.tolist(), strict=True):
        rows = stream[(end - count) * 50 : end * 50]
        for start in range(0, len(rows), 50_000):
            shard.apply(rows[start : start + 50_000])
    reader = Reader([shard.index for shard in shards])
    found, payloads = reader.get_many(HASH, keys, 48)
    assert found.all()
    assert (payloads[:, :32] == keys).all()
    assert [reader.get(HASH, key) for key in keys[:200]] == [row.tobytes() for row in payloads[:200]]
    assert sum(shard.index.records for shard in shards) == len(keys)
    assert not reader.get_many(HASH, random_keys(5000, seed=9), 48)[0].any()
