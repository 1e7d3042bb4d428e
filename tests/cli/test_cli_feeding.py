"""Feeding a real store: the first occurrence wins, and sectors are given out once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import siltstone
from siltstone import HashInfo
from siltstone.cli.feeding import ALLOCATION_KEY, BATCH_BLOCKS, Feeder, first_occurrences
from siltstone.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def digests_of(*names: object) -> NDArray[np.uint8]:
    joined = b"".join(hashlib.sha256(str(name).encode()).digest() for name in names)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def feed(
    feeder: Feeder, names: list[object], lengths: list[int] | None = None, first_sector: int = 0
) -> None:
    feeder.add(
        digests_of(*names),
        np.array(lengths or [512] * len(names), np.uint32),
        np.arange(first_sector, first_sector + len(names), dtype=np.uint64),
    )


@given(st.lists(st.binary(min_size=2, max_size=2), max_size=40), st.binary(min_size=30, max_size=30))
def test_first_occurrences_are_those_of_a_plain_loop(ends: list[bytes], start: bytes) -> None:
    # Digests that differ at their very end only, zeros there included.
    rows = [start + end for end in ends] + [end + start for end in ends]
    expected = [row for row, digest in enumerate(rows) if digest not in rows[:row]]
    digests = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)
    assert first_occurrences(digests).tolist() == expected


def test_places_follow_each_other_and_the_first_occurrence_wins(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt") as store:
        feeder = Feeder(store, "sha256")
        feed(feeder, ["a", "b", "a", "c", "b"], [4096, 100, 4096, 1024, 100])
        feeder.finish()
        feed(feeder, ["c", "d", "a"], [1024, 512, 4096], first_sector=100)
        feeder.finish()
        found = [store.get(digest.tobytes()) for digest in digests_of("a", "b", "c", "d")]
        assert [(info.physical_sect, info.first_logical_sect) for info in found if info] == [
            (0, 0),
            (8, 1),
            (9, 3),
            (11, 101),
        ]
        assert (feeder.blocks, feeder.unique, feeder.known, feeder.records) == (8, 4, 0, 4)
        assert (feeder.bytes, feeder.unique_bytes) == (15_048, 5_732)


def test_the_next_run_goes_on_behind_and_knows_what_was_there(tmp_path: Path) -> None:
    for run in range(3):
        with siltstone.open(tmp_path / "store.silt") as store:
            feeder = Feeder(store, "sha256")
            feed(feeder, ["a", "b", f"new in {run}"])
            feeder.finish()
            info = store.get(digests_of(f"new in {run}").tobytes())
            assert info is not None
            assert info.physical_sect == 2 + run
            assert (feeder.unique, feeder.known) == ((3, 0) if run == 0 else (1, 2))


def test_a_run_that_ended_halfway_has_its_sectors_to_itself(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt") as store:
        feeder = Feeder(store, "sha256")
        feed(feeder, list(range(BATCH_BLOCKS)))
        # No finish: as after a crash. What was fed may be there, and what it used is set aside.
    with siltstone.open(tmp_path / "store.silt") as store:
        again = Feeder(store, "sha256")
        feed(again, ["after"])
        again.finish()
        info = store.get(digests_of("after").tobytes())
        assert info is not None
        assert info.physical_sect >= BATCH_BLOCKS


def test_many_batches_are_fed_as_one(tmp_path: Path) -> None:
    names: list[object] = [number % 30_000 for number in range(100_000)]
    with siltstone.open(tmp_path / "store.silt") as store:
        feeder = Feeder(store, "sha256")
        for start in range(0, len(names), 700):
            feed(feeder, names[start : start + 700])
        feeder.finish()
        assert (feeder.blocks, feeder.unique, feeder.records) == (100_000, 30_000, 30_000)
        found, physical, _ = store.get_many(digests_of(*range(30_000)))
        assert found.all()
        assert sorted(physical.tolist()) == list(range(30_000))


def test_a_store_filled_with_another_hash_is_refused(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt") as store:
        feeder = Feeder(store, "blake3")
        feed(feeder, ["a"])
        feeder.finish()
        with pytest.raises(StateError, match="filled with blake3 hashes; no sha256 hash would be found"):
            Feeder(store, "sha256")


def test_a_store_filled_by_others_is_refused(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt") as store:
        store.put(HashInfo(digests_of("foreign").tobytes(), 8, 0))
        with pytest.raises(StateError, match="its 1 records are not from `siltstone dedup`"):
            Feeder(store, "sha256")


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt") as store:
        feeder = Feeder(store, "sha256")
        feeder.finish()
        assert (store.get(ALLOCATION_KEY), store.info().records) == (None, 0)
