"""Single puts go the short way into a tail: nothing tells it from the long way but that no interrupt stops a shard."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from interrupts import Anywhere
from store_records import assert_holds, digest, info, rows

import siltstone
from siltstone.errors import EntryError
from siltstone.shard.batches import delete_stream
from siltstone.shard.tail_append import append_to_tail

if TYPE_CHECKING:
    from pathlib import Path

    from siltstone.shard.shard import Shard

SMALL = {"workers": 0, "shards": 1, "erase_block": 64 * 1024}


def only_shard(store: siltstone.Store) -> Shard:
    host: Any = store._core.shards  # type: ignore[union-attr]
    (shard,) = host.group.shards.values()
    return shard  # type: ignore[no-any-return]


def entry(number: int) -> bytes:
    record = info(number)
    return (
        bytes((50, 2))
        + record.hash
        + record.physical_sect.to_bytes(8, "big")
        + record.first_logical_sect.to_bytes(8, "big")
    )


def test_both_ways_leave_the_same_journals(tmp_path: Path) -> None:
    """Single puts, and batches that are as long as the short way takes, or one longer."""
    with (
        siltstone.open(tmp_path / "short.silt", **SMALL) as short,
        siltstone.open(tmp_path / "long.silt", **SMALL) as long,
    ):
        number = 0
        for size in [*([1] * 200), *range(1, 14), *([1] * 100)]:
            chosen = [entry(each) for each in range(number, number + size)]
            stream = np.frombuffer(b"".join(chosen), np.uint8)
            number += size
            shard = only_shard(short)
            was_short = append_to_tail(shard, stream, size)
            # What it does not take is what closes a cluster, and what is long.
            fits = shard.journal.writer.used + len(stream) <= 4062  # type: ignore[union-attr]
            assert was_short or not fits or len(stream) > 512
            if not was_short:
                shard.append(stream, size)
            only_shard(long).append(stream, size)
            ends = [one.journal.writer.position for one in map(only_shard, (short, long))]  # type: ignore[union-attr]
            assert ends[0] == ends[1]
            assert short.get(digest(number - 1)) == info(number - 1)
            if number % 7 == 0:
                short.flush()
                long.flush()
        assert len(short) == len(long) == number
        assert only_shard(short).store.uncovered == only_shard(long).store.uncovered
        assert_holds(short, range(number))


def test_what_is_no_entry_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        shard = only_shard(store)
        before = shard.journal.writer.position  # type: ignore[union-attr]
        for wrong in (
            b"\x05",
            b"\x00\x02",
            b"\x32\x02" + bytes(47),
            b"\x02\x01",
            entry(1) + b"\x07",
            bytes(50),
        ):
            with pytest.raises(EntryError):
                append_to_tail(shard, wrong, 1)
        assert not append_to_tail(shard, b"", 1)
        assert shard.journal.writer.position == before  # type: ignore[union-attr]
        store.put(info(1))
        assert_holds(store, [1])


def test_what_deletes_goes_the_long_way(tmp_path: Path) -> None:
    """It may have to be remembered."""
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        store.put(info(1))
        stream = delete_stream(2, np.frombuffer(digest(1), np.uint8).reshape(1, 32))
        assert not append_to_tail(only_shard(store), bytes(stream), 0)
        assert not append_to_tail(only_shard(store), entry(2) + bytes(stream), 1)
        assert store.get(digest(1)) == info(1)
        assert store.get(digest(2)) is None


def test_what_may_replace_something_goes_the_long_way(tmp_path: Path) -> None:
    """What it replaces is read, and that may wait for the medium."""
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        shard = only_shard(store)
        assert append_to_tail(shard, entry(1), 1)
        for stream in (entry(1), entry(2) + entry(1)):
            assert not append_to_tail(shard, stream, 1)
        assert store.get(digest(2)) is None
        store.put(info(1))
        store.delete(digest(1))
        assert append_to_tail(shard, entry(1), 1)
        assert_holds(store, [1])


def test_a_shard_that_takes_nothing_more_takes_nothing_the_short_way(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        shard = only_shard(store)
        store.put(info(1))
        for thing, name, value in (
            (shard, "broken", shard.interrupted("a test")),
            (shard, "reserve", shard.journal.extent),  # type: ignore[union-attr]
            (shard, "journal", None),
            (shard.journal, "poison", shard.interrupted("a test")),
            (shard.journal, "given_up", True),
            (shard.store, "size", replace(shard.store.size, records=len(store))),
        ):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(thing, name, value)
                assert not append_to_tail(shard, entry(2), 1), name
        with shard.lock:
            assert not append_to_tail(shard, entry(2), 1)
        assert store.get(digest(2)) is None
        assert append_to_tail(shard, entry(2), 1)
        assert_holds(store, [1, 2])


@pytest.mark.parametrize("what", ["put", "flush"])
def test_an_interrupt_anywhere_in_a_single_put_or_its_flush_stops_no_shard(tmp_path: Path, what: str) -> None:
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        store.put_many(*rows(range(10)))
        for place in itertools.count(100):
            act = store.flush
            if what == "put":
                act = lambda place=place: store.put(info(place))  # noqa: E731
            else:
                store.put(info(place))
            was_interrupted = Anywhere(place - 99).while_(act)
            # It goes on as if nothing had been.
            assert only_shard(store).broken is None
            store.put(info(place))
            store.flush()
            if not was_interrupted:
                break
        assert place > 110
        assert_holds(store, range(100, place + 1))


def test_a_single_put_begins_the_time_without_puts_anew(tmp_path: Path) -> None:
    """Else the tail would be written once more behind each flush of somebody who puts all the time."""
    with siltstone.open(tmp_path / "store.silt", **SMALL) as store:
        shard = only_shard(store)
        store.put(info(1))
        store.flush()
        shard.last_change = -1e9
        assert shard.is_idle(shard.volume.ports.clock())
        store.put(info(2))
        store.flush()
        assert not shard.is_idle(shard.volume.ports.clock())
