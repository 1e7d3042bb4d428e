"""What takes room in an index that is full: room is made for it, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, hashes, info, rows

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
            store.put(info(10**9))
    with pytest.raises(LogStoreFullError, match="outgrew its window"):
        store.delete_many(hashes(range(10)))
