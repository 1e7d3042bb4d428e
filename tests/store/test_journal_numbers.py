"""A shard has as many journals as an index can number: it still opens, again and again, and says that it is full."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, rows

from siltstone.errors import LogStoreFullError
from siltstone.format.seal import End
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    KIND_JOURNAL,
    Extent,
)
from siltstone.index.layout import JOURNALS_MAX
from siltstone.shard import space
from siltstone.shard.changes import TakeEmpty

BLOCK = 64 * 1024


def add_journals(store, count):
    """Let the superblock name closed journals without an entry, all before the active one."""

    def change(superblock):
        at = max(extent.stop for extent in superblock.extents)
        first = superblock.next_extent
        added = [
            Extent(
                first + number,
                at + number * BLOCK,
                BLOCK,
                KIND_JOURNAL,
                0,
                10 + number,
                CLOSED,
                generation=2,
                end=End(0, 0, None, 0),
            )
            for number in range(count)
        ]
        kept = [replace(e, order=10**6) if e.state == ACTIVE else e for e in superblock.extents]
        return replace(superblock, next_extent=first + count, extents=(*kept, *added))

    store._core.volume.publish(change)


@pytest.mark.parametrize("journals", [JOURNALS_MAX - 1, JOURNALS_MAX])
def test_a_shard_with_all_its_journals_survives_any_number_of_deaths(path, host, journals):
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    add_journals(store, journals - 1)
    # More than the half of a first journal, so that recovery cannot copy it.
    store.put_many(*rows(range(1500)))
    store.flush()
    store._core.abandon()
    put = 1500
    for _life in range(2):
        store = open_settled(Medium(str(path)), host)
        assert not store.read_only
        assert_holds(store, range(put))
        assert len(store) == put
        with pytest.raises(LogStoreFullError):
            while True:
                store.put_many(*rows(range(put, put + 50)))
                put += 50
        store.flush()
        store._core.abandon()


def test_journals_that_two_threads_add_get_numbers_of_their_own(path, host, monkeypatch):
    """A spare is made ready for those who put while another journal is packed."""
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    shard, backend = store._core.shards.group.shards[0], store._core.volume.backend
    both, usual = threading.Barrier(2), backend.map

    def map_together(offset, length):
        # Both have chosen their number, and none has been attached.
        both.wait(10)
        return usual(offset, length)

    extents = [
        space.taken_by(store._core.volume.publish(TakeEmpty(0, BLOCK, kept=False)), 0) for _ in range(2)
    ]
    monkeypatch.setattr(backend, "map", map_together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shard.store.add, extents))
    # The tally of each is its own.
    numbers = shard.store._numbers
    assert len(set(numbers.values())) == len(numbers) == 3
    for extent in extents:
        shard.store.remove(extent)
    store._core.abandon()
