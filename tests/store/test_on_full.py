"""A window over the newest records: what is oldest goes when there is no room, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from real_media import mounted
from store_records import hashes

import siltstone

SMALL = 64 * 1024
STEP = 2_000


def put(store, numbers):
    numbers = np.asarray(numbers)
    values = numbers.astype(np.uint64)
    store.put_many(hashes(numbers), values, values)


def found_of(store, numbers):
    found, physical, _logical = store.get_many(hashes(numbers))
    np.testing.assert_array_equal(physical[found], np.asarray(numbers, np.uint64)[found])
    return found


def window_of(store, numbers):
    """What is found of what was put in this order; that each shard has its newest records and none before them."""
    found = found_of(store, numbers)
    # Housekeeping may let the oldest go between the first and the last look of one call.
    while not np.array_equal(found, again := found_of(store, numbers)):
        found = again
    shards = store._core.router.shards_of(store._default.id, hashes(numbers))
    for shard in np.unique(shards).tolist():
        mine = found[shards == shard]
        assert mine[len(mine) - mine.sum() :].all(), (
            f"shard {shard} lacks records newer than others that it has"
        )
    return found


def test_only_so_many_hash_stores_are_kept(path):
    with siltstone.open(
        path, shards=2, erase_block=SMALL, on_full="drop_oldest", hash_stores_max=3, index_memory=1 << 20
    ) as store:
        for round_ in range(8):
            put(store, range(round_ * STEP, (round_ + 1) * STEP))
            store.incarnate()
        kinds = [extent.kind for extent in store.info().extents]
        assert kinds.count("hash_store") == 2 * 3
        assert not found_of(store, range(5 * STEP)).any()
        assert found_of(store, range(5 * STEP, 8 * STEP)).all()
        assert len(store) == 3 * STEP
    with siltstone.open(path) as store:
        assert not found_of(store, range(5 * STEP)).any()
        assert found_of(store, range(5 * STEP, 8 * STEP)).all()


def test_what_is_merged_is_kept_unless_told_otherwise(path):
    with siltstone.open(path, shards=2, erase_block=SMALL, hash_stores_max=3, index_memory=1 << 20) as store:
        for round_ in range(8):
            put(store, range(round_ * STEP, (round_ + 1) * STEP))
            store.incarnate()
        assert found_of(store, range(8 * STEP)).all()


@pytest.mark.root
@pytest.mark.parametrize("index_memory", [1 << 20, 256 << 20])
def test_a_full_disk_drops_the_oldest_and_goes_on(tmp_path, index_memory, full_battery):
    """Whether anything was incarnated yet or not: many times what the disk holds."""
    times = 10 if full_battery else 3
    with mounted("tmpfs", tmp_path / "disk", "-t", "tmpfs", "-o", "size=12m") as disk:
        with siltstone.open(
            disk / "store.silt",
            shards=2,
            erase_block=SMALL,
            on_full="drop_oldest",
            index_memory=index_memory,
        ) as store:
            total = times * (12 << 20) // 50 // STEP * STEP
            for start in range(0, total, STEP):
                put(store, range(start, start + STEP))
                assert found_of(store, range(start, start + STEP)).all()
            # Hash stores that there is no space for are not begun again and again.
            assert store.info().sequence < 8 * total // STEP
            kept = window_of(store, range(total))
            assert kept[-20_000:].all()
            assert not kept[: total // 2].any()
            assert kept.sum() * 50 > 2 << 20
        with siltstone.open(disk / "store.silt", index_memory=index_memory) as store:
            again = window_of(store, range(total))
            # Housekeeping may go on after the last put, with what is oldest.
            assert not (again & ~kept).any()
            assert again[-20_000:].all()
            assert again.sum() * 50 > 2 << 20
