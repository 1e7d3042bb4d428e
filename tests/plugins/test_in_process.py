"""Shards in the caller's process: what a put that must not wait does where it would have to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from store_records import assert_holds, digest, info, rows

import siltstone
from siltstone.format.constants import UNFLUSHED_CLUSTERS_MAX
from siltstone.plugin.hosting import ShardHost

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from siltstone.shard.shard import Shard


def only_shard(store: siltstone.Store) -> Shard:
    """Nobody has it but the test: housekeeping would now and then, and a put that must not wait comes back then."""
    store._core.shards.end_housekeeping()
    return store._core.shards.group.shards[0]


def test_a_put_that_must_not_wait_does_nothing_where_the_journal_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1, erase_block=64 * 1024) as store:
        shard = only_shard(store)
        flushes, flush = [], shard.volume.flush

        def counted(**options: Any) -> None:
            flushes.append(options)
            flush(**options)

        monkeypatch.setattr(shard.volume, "flush", counted)
        for life in range(3):
            journal, number = shard.journal, life * 100_000
            while store.try_put(info(number)):
                assert shard.journal is journal
                number += 1
            # As full as it gets, and no other one was taken; nor is the next put any more welcome.
            assert number > life * 100_000 + 1000
            assert journal.clusters == journal.writer.index + 1
            assert store.get(digest(number)) is None
            assert not store.try_put(info(number))
            assert flushes == []
            store.put(info(number))
            assert shard.journal is not journal
            assert_holds(store, range(life * 100_000, number + 1))
            del flushes[:]


def test_a_put_that_must_not_wait_does_nothing_while_another_thread_has_the_shard(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1) as store:
        # As while a roll writes the superblock.
        with only_shard(store).lock:
            assert not store.try_put(info(1))
        assert store.get(digest(1)) is None
        assert store.try_put(info(1))
        assert store.get(digest(1)) == info(1)


def test_a_put_that_must_not_wait_does_nothing_where_too_much_is_not_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1) as store:
        store.put_many(*rows(range(10)))
        journal, number = only_shard(store).journal, 10
        # As if so many clusters had been written since the last flush.
        monkeypatch.setattr(journal, "_unflushed", UNFLUSHED_CLUSTERS_MAX)
        index = journal.writer.index
        while store.try_put(info(number)):
            number += 1
        assert journal.writer.index == index
        store.flush()
        assert store.try_put(info(number))
        assert_holds(store, range(number + 1))


class Silent(ShardHost):
    """A host that says nothing of puts that must not wait."""

    def __init__(self) -> None:
        self.appended: list[object] = []

    def append(self, streams: Any) -> None:
        self.appended.append(streams)


def test_a_host_that_does_not_say_how_takes_no_put_that_must_not_wait() -> None:
    Silent.__abstractmethods__ = frozenset()  # type: ignore[attr-defined] # the rest of a host is not asked
    host, stream = Silent(), np.zeros(50, np.uint8)  # type: ignore[abstract]
    assert not host.try_append(0, stream, 1)
    assert host.appended == []
