"""What was overwritten or deleted gives its space back, whoever runs the shards, and nothing else goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from store_dict import DictBeside
from store_records import hashes

import siltstone
from siltstone import HashInfo
from siltstone.format.superblock import ACTIVE, CLOSED

SMALL = 64 * 1024


def test_what_is_put_and_deleted_for_ever_stays_within_a_bound(path):
    """Twenty rounds take little more space than one."""
    keys = hashes(range(20_000))
    rows = np.arange(len(keys), dtype=np.uint64)
    sizes = []
    with siltstone.open(path, shards=2, erase_block=SMALL) as store:
        for round_ in range(20):
            store.put_many(keys, rows + round_, rows)
            assert len(store) == len(keys)
            assert store.delete_many(keys).all()
            store.pack()
            sizes.append(store.info().volume_bytes)
        assert len(store) == 0
        # 1.7 MB were written in each.
        assert max(sizes) < 4 * len(keys) * (50 + 35)
        assert store.info().journals <= 6
    with siltstone.open(path) as store:
        assert len(store) == 0


def test_what_is_overwritten_for_ever_stays_within_a_bound(path):
    keys = hashes(range(10_000))
    kept = hashes(range(10_000, 30_000))
    rows = np.arange(len(keys), dtype=np.uint64)
    with siltstone.open(path, shards=2, erase_block=SMALL) as store:
        store.put_many(kept, np.arange(len(kept), dtype=np.uint64), np.zeros(len(kept), np.uint64))
        for round_ in range(40):
            store.put_many(keys, rows + round_, rows)
            store.pack()
            found, physical, _logical = store.get_many(keys)
            assert found.all()
            np.testing.assert_array_equal(physical, rows + round_)
        live = 50 * (len(keys) + len(kept))
        # As much again that is dead, an active journal and a spare of up to that size, the copies while it is packed:
        # six times, and whole erase blocks. 21 MB were written.
        assert store.info().volume_bytes < 7 * live
    with siltstone.open(path) as store:
        found, physical, _logical = store.get_many(keys)
        assert found.all()
        np.testing.assert_array_equal(physical, rows + 39)
        assert store.get_many(kept)[0].all()


def test_it_is_done_by_itself(path):
    """Housekeeping packs without being asked."""
    keys = hashes(range(5_000))
    rows = np.zeros(len(keys), np.uint64)
    with siltstone.open(path, shards=1, erase_block=SMALL) as store:
        bound = 0
        for _ in range(200):
            store.put_many(keys, rows, rows)
            bound += 50 * len(keys)
            store.flush()
            if store.info().journal_bytes < bound // 2 > 4 * 50 * len(keys):
                break
        else:
            pytest.fail(f"{store.info().journal_bytes} bytes of journals after {bound} bytes were put")
        assert store.get_many(keys)[0].all()


def test_any_changes_between_packs_are_kept(path):
    """Random puts and deletions, packed now and then, against a dict; opened again, also without a close."""
    both = DictBeside(path, shards=3, seed=7, most=2_000)
    for _step in range(60):
        both.change()
        if both.chance.random() < 0.3:
            both.store.pack()
        if both.chance.random() < 0.1:
            both.open_again()
        both.check()
        assert len(both.store) == len(both.held)
    both.store.close()


def test_nothing_is_packed_where_all_is_alive(path):
    keys = hashes(range(20_000))
    rows = np.zeros(len(keys), np.uint64)
    with siltstone.open(path, shards=1, erase_block=SMALL) as store:
        store.put_many(keys, rows, rows)
        # What never took an entry goes, now or when housekeeping comes to it; the next may be made ready at any time.
        store.pack()
        before = [each for each in store.info().extents if each.state in (ACTIVE, CLOSED)]
        assert store.info().dead_entries == 0
        store.pack()
        assert [each for each in store.info().extents if each.state in (ACTIVE, CLOSED)] == before
        assert isinstance(store.get(keys[5].tobytes()), HashInfo)


def test_packing_a_closed_store_or_a_read_only_one_is_refused(path):
    store = siltstone.open(path)
    store.close()
    with pytest.raises(siltstone.ClosedError):
        store.pack()
    with siltstone.open(path, read_only=True) as store, pytest.raises(siltstone.ReadOnlyError):
        store.pack()
