"""Journals whose seals are all valid and whose contents are malice: damage is said, no place beyond the log is used."""

from __future__ import annotations

import numpy as np
import pytest
from sealed_images import CLUSTER, ENTRIES_A_CLUSTER, EXTENT, UUID, Medium, entries

from siltstone.errors import DamageError
from siltstone.format.kernels import ClusterWriter, seal_cluster
from siltstone.format.seal import End, journal_key
from siltstone.journal.log_reader import LogReader
from siltstone.journal.recovery import recover

KEY = journal_key(UUID, EXTENT.id, EXTENT.generation)
CLUSTERS = EXTENT.length // CLUSTER - 2
COMMITTED_AT = 4074
BATCH = 10


def forge(medium: Medium, count: int, *, slots: bool = True) -> ClusterWriter:
    """Write a log of so many entries, in batches, wherever it leads; its tail to both slots, or with `slots`
    False an empty one. The writer."""
    writer = ClusterWriter(KEY, EXTENT.generation, b"", 0, 0, (0, 0))
    tail = bytearray(CLUSTER)
    writer.tail_copy(tail)
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        staged = writer.stage(np.frombuffer(entries(first, size), np.uint8), np.empty(size, np.uint64))
        log = b"" if staged is None else bytes(staged)
        if log:
            medium.write(EXTENT.offset + (2 + writer.index) * CLUSTER, log)
        writer.take(len(log) // CLUSTER)
    if slots:
        writer.tail_copy(tail)
    write_slots(medium, tail)
    return writer


def write_slots(medium: Medium, tail: bytearray) -> None:
    for slot in (0, 1):
        medium.write(EXTENT.offset + slot * CLUSTER, tail)


def found(medium: Medium, *, clean: bool = False) -> End:
    return recover(medium, UUID, EXTENT, clean=clean, unreadable_is_torn=False).end


@pytest.fixture
def medium() -> Medium:
    return Medium()


def test_an_honest_log_that_fills_its_journal_is_found(medium: Medium) -> None:
    writer = forge(medium, (CLUSTERS - 1) * ENTRIES_A_CLUSTER + 5)
    end = found(medium)
    assert (end.cluster, end.byte) == (writer.index, writer.used) == (CLUSTERS - 1, 5 * 50)


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_tail_beyond_the_log_is_damage(medium: Medium, beyond: int) -> None:
    writer = forge(medium, (CLUSTERS + beyond) * ENTRIES_A_CLUSTER + 5)
    assert writer.index == CLUSTERS + beyond
    with pytest.raises(DamageError, match="both tail slots"):
        found(medium)


def test_the_last_log_cluster_is_never_the_body_of_a_log(medium: Medium) -> None:
    """Were it counted, what comes next would lie in a cluster that the journal does not have."""
    forge(medium, CLUSTERS * ENTRIES_A_CLUSTER + 5, slots=False)
    last = EXTENT.offset + (CLUSTERS + 1) * CLUSTER
    assert any(medium.data[last : last + CLUSTER])
    end = found(medium)
    assert end.cluster == CLUSTERS - 2
    LogReader(medium, UUID, EXTENT).last_cluster(end)


@pytest.mark.parametrize("committed", [1, 75, 499])
def test_a_tail_committed_inside_an_entry_is_damage(medium: Medium, committed: int) -> None:
    writer = forge(medium, 10)
    assert writer.used == 500
    tail = bytearray(medium.read(EXTENT.offset, CLUSTER))
    tail[COMMITTED_AT : COMMITTED_AT + 2] = committed.to_bytes(2, "big")
    seal_cluster(KEY, tail)
    write_slots(medium, tail)
    with pytest.raises(DamageError, match="both tail slots"):
        found(medium)


@pytest.mark.parametrize("slot", [0, 1, None])
@pytest.mark.parametrize("byte", [0, 50, 75, 450, 499, 500, 501, 550])
def test_an_end_that_is_no_boundary_of_entries_is_damage(medium: Medium, byte: int, slot: int | None) -> None:
    forge(medium, 10)
    reader = LogReader(medium, UUID, EXTENT)
    end = End(0, byte, slot, 5)
    if byte % 50 == 0 and byte <= 500:
        last, _slot = reader.last_cluster(end)
        assert bytes(last[:byte]) == entries(0, byte // 50)
    else:
        with pytest.raises(DamageError):
            reader.last_cluster(end)
