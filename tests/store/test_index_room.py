"""What takes room in an index that is full: room is made for it, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, hashes, info, rows

import siltstone
from siltstone.errors import LogStoreFullError
from siltstone.log_store import memory

SMALLEST = 1 << 20


@pytest.fixture
def store(path, host, monkeypatch):
    """A store whose index takes hardly more than its budget, with hash stores of three times that."""
    monkeypatch.setattr(memory, "_WINDOW_MIN", 4096)
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host, index_memory=SMALLEST) as opened:
        limit = opened.info().index_records_max
        for start in range(0, 3 * limit, limit // 4):
            opened.put_many(*rows(range(start, start + limit // 4)))
        yield opened


def test_deletions_of_more_than_the_index_holds(store, path, host):
    count = len(store)
    assert store.delete_many(hashes(range(count))).all()
    assert not store.get_many(hashes(range(count)))[0].any()
    assert len(store) == 0
    shard = store._core.shards.group.shards[0]
    assert shard.store.slots <= shard.store.size.records
    store.close()
    with open_settled(Medium(str(path)), host, index_memory=SMALLEST) as reopened:
        assert not reopened.get_many(hashes(range(count)))[0].any()


def test_batches_that_delete_more_than_the_index_holds(store):
    count = len(store)
    for part in np.array_split(np.arange(count), 20):
        with store.batch() as batch:
            batch.delete_many(hashes(part))
    assert len(store) == 0
    shard = store._core.shards.group.shards[0]
    assert shard.store.slots <= shard.store.size.records


def test_a_put_that_must_not_wait_is_left_to_one_that_may(store):
    shard = store._core.shards.group.shards[0]
    number = 10**6
    while store.try_put(info(number)):
        number += 1
        store.flush() if number % 64 == 0 else None
        if shard.store.room > 1000:
            store.put_many(*rows(range(2 * 10**6, 2 * 10**6 + shard.store.room - 100)))
        if number > 10**6 + 10_000:
            pytest.fail("the index is never full")
    store.put(info(number))
    assert_holds(store, range(10**6, number + 1))


def test_a_shard_whose_index_could_not_take_what_is_in_the_journal_refuses_at_once(store, monkeypatch):
    """However much room its index has: one of its segments may have none."""
    shard = store._core.shards.group.shards[0]

    def outgrown(*_arguments):
        raise MemoryError("a segment of the index outgrew its window")

    monkeypatch.setattr(shard.store, "apply", outgrown)
    for _again in range(2):
        with pytest.raises(LogStoreFullError, match="outgrew its window"):
            # More than goes to a tail in compiled code.
            store.put_many(*rows(range(10**9, 10**9 + 20)))
    with pytest.raises(LogStoreFullError, match="outgrew its window"):
        store.put(info(10**9))
    with pytest.raises(LogStoreFullError, match="outgrew its window"):
        store.delete_many(hashes(range(10)))


def segments_of(keys, secret, segments):
    """The segment of the index that each of (n, 32) keys of type 2 belongs to: bits of SipHash-1-3 (Aumasson, 2012)."""

    def turned(word, by):
        return word << np.uint64(by) | word >> np.uint64(64 - by)

    def mixed(a, b, c, d):
        a, b = a + b, turned(b, 13) ^ (a + b)
        a = turned(a, 32)
        c, d = c + d, turned(d, 16) ^ (c + d)
        a, d = a + d, turned(d, 21) ^ (a + d)
        c, b = c + b, turned(b, 17) ^ (c + b)
        return a, b, turned(c, 32), d

    words = np.ascontiguousarray(keys).view("<u8").astype(np.uint64)
    one, two = (np.uint64(int.from_bytes(secret[at : at + 8], "little")) for at in (0, 8))
    two ^= np.uint64(2)
    start = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    state = tuple(
        np.full(len(keys), np.uint64(word) ^ key)
        for word, key in zip(start, (one, two, one, two), strict=True)
    )
    for word in (*words.T, np.full(len(keys), np.uint64(32 << 56))):
        a, b, c, d = state
        a, b, c, d = mixed(a, b, c, d ^ word)
        state = a ^ word, b, c, d
    a, b, c, d = state
    state = a, b, c ^ np.uint64(0xFF), d
    for _round in range(3):
        state = mixed(*state)
    hashed = state[0] ^ state[1] ^ state[2] ^ state[3]
    return hashed >> np.uint64(28) & np.uint64(segments - 1)


def test_a_put_whose_segment_of_the_index_has_no_room_is_told_and_kept(path, host):
    """However much room there is in all others."""
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host, index_memory=SMALLEST) as store:
        size = store._core.shards.group.shards[0].store.size
        slots = size.window_bytes // 8
        candidates = np.arange(2 * slots * size.segments)
        there = segments_of(hashes(candidates), store._core.volume.superblock.uuid, size.segments) == 7
        numbers = candidates[there].tolist()
        assert slots < len(numbers) < size.records
        put = []
        with pytest.raises(LogStoreFullError, match="outgrew its window"):
            for number in numbers:
                store.put(info(number))
                put.append(number)
        assert slots // 2 < len(put) <= slots
        with pytest.raises(LogStoreFullError, match="outgrew its window"):
            store.put(info(10**9))
        assert_holds(store, put)
    with siltstone.open(path, plugins=host) as reopened:
        # With the one that was refused: the journal had it.
        assert_holds(reopened, numbers[: len(put) + 1])
        assert len(reopened) == len(put) + 1
