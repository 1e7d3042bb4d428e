"""What is counted while others put and delete: never what there cannot be."""

from __future__ import annotations

import threading

import numpy as np
from store_records import hashes

import siltstone


def test_no_deletions_are_counted_where_none_are_remembered(path):
    """Housekeeping looks without a lock, and would make a hash store of an index that seems full."""
    keys = hashes(range(20_000))
    rows = np.arange(len(keys), dtype=np.uint64)
    seen, over = set(), threading.Event()
    with siltstone.open(path, shards=1, workers=0) as store:
        log_store = store._core.shards.group.shards[0].store

        def look():
            while not over.is_set():
                seen.update(log_store.index.tombstones for _look in range(1000))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            for _round in range(5):
                store.put_many(keys, rows, rows)
                store.delete_many(keys)
        finally:
            over.set()
            looking.join()
    assert max(seen) <= 1
