"""Faults just where a journal ends: an unreadable cluster, a batch given up, a slot that rotted."""

from __future__ import annotations

import numpy as np
import pytest
from crash_states import crash_points
from journal_life import JournalChecker, JournalLife, journal_extent
from medium import HEAD, SLOT_KEPT, Image, Medium, PartialError
from store_life import StoreLife, put, reopened
from store_operations import OPERATIONS

from siltstone.errors import DamageError, DiskFullError, MediumError
from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_MIN, EXTENTS_OFFSET
from siltstone.journal.recovery import recover
from siltstone.shard.changes import CleanClose

EXTENTS = 10 * ERASE_BLOCK_MIN


def three_clusters() -> JournalLife:
    life = JournalLife(Image.blank(10 * CLUSTER_SIZE), journal_extent(10))
    for _number in range(4):
        life.append(*[50] * 60)
        life.flush()
    return life


@pytest.mark.parametrize("cluster", range(9))  # nothing is ever written into the last one
def test_a_cluster_that_cannot_be_read_is_never_taken_for_the_end(cluster):
    life = three_clusters()
    medium = Medium(life.medium.at_rest)
    medium.broken_reads.add(EXTENTS_OFFSET + cluster * CLUSTER_SIZE + 100)
    with pytest.raises(MediumError) as caught:
        recover(medium, life.uuid, life.extent, clean=False)
    assert caught.value.errno == 5


@pytest.mark.parametrize("cluster", range(10))
def test_an_unreadable_cluster_is_taken_for_a_torn_one_only_if_told_and_only_behind_what_is_durable(cluster):
    life = three_clusters()
    life.flush(note=True)
    checker = JournalChecker(life)
    checker.load(life.medium.bytes)
    checker.medium.broken_reads.add(EXTENTS_OFFSET + cluster * CLUSTER_SIZE + 100)

    def opened():
        return recover(checker.medium, life.uuid, life.extent, clean=False, unreadable_is_torn=True)

    if 2 <= cluster < 2 + life.journal.position.cluster:
        with pytest.raises(MediumError):
            opened()
    else:
        # A slot that cannot be read has a twin after the idle note; behind the end nothing is missed.
        assert opened().end.position == life.journal.position


def test_a_batch_given_up_leaves_a_store_that_closes_cleanly_and_opens_again():
    life = StoreLife.formatted(Image.blank(EXTENTS))
    life.append()
    life.flush()
    journal = life.group.shards[0].journal
    assert journal is not None
    stream = np.frombuffer(b"".join(put(1000 + number, number) for number in range(300)), np.uint8)
    life.medium.failures[life.medium.operations] = PartialError(2 * CLUSTER_SIZE)
    with pytest.raises(DiskFullError):
        life.group.append({0: (stream, 300)})
    assert journal.given_up
    expected = list(life.given)
    life.close()
    assert life.given == expected
    life.append()
    life.flush()
    life.kill()
    assert len(life.given[0]) == 2


@pytest.mark.parametrize("then", ["append", "batch", "delete", "roll", "kill", "note"])
def test_work_goes_on_after_a_batch_was_given_up(then):
    life = StoreLife.formatted(Image.blank(EXTENTS))
    life.append()
    stream = np.frombuffer(b"".join(put(1000 + number, number) for number in range(300)), np.uint8)
    life.medium.failures[life.medium.operations] = PartialError(2 * CLUSTER_SIZE)
    with pytest.raises(DiskFullError):
        life.group.append({0: (stream, 300)})
    first = len(life.medium.log)
    OPERATIONS[then](life)
    if then != "kill":
        life.flush()
    for point in crash_points(life.medium.start, life.medium.log, first):
        told = life.told_at(point.number)
        reopened(point.after_death(), told)
        reopened(point.after_power_cut([]), told)
    life.close()
    life.append()
    life.close()


@pytest.mark.parametrize("rotten", [0, 1])
def test_a_rotten_slot_does_not_cost_the_good_copy(rotten):
    """After an idle note both slots hold the end: one of them may rot while the store is closed."""
    life = StoreLife.formatted(Image.blank(EXTENTS))
    life.append()
    life.flush()
    life.note()
    life.volume.publish(CleanClose(life.group.end()))
    image = bytearray(life.medium.at_rest.durable)
    journal = life.group.shards[0].journal
    assert journal is not None
    at = journal.extent.offset - EXTENTS_OFFSET + HEAD + rotten * CLUSTER_SIZE
    image[at] ^= 1
    again = reopened(Image(image), life.told[-1])
    first = len(again.medium.log)
    again.append()
    again.flush()
    for point in crash_points(again.medium.start, again.medium.log, first):
        if point.widest and point.pending:
            torn = [(write.offset, b"\0" * len(write.data)) for write in point.pending]
            reopened(point.after_power_cut(torn), again.told_at(point.number))


def test_a_volume_whose_slots_are_both_damaged_is_refused():
    life = StoreLife.formatted(Image.blank(EXTENTS))
    image = bytearray(life.medium.at_rest.durable)
    image[40] ^= 1
    reopened(Image(bytes(image)), life.told[-1])
    image[SLOT_KEPT + 40] ^= 1
    with pytest.raises(Exception, match="damaged"):
        StoreLife(Image(image), life.told[-1]).open()


def test_both_tail_slots_damaged_is_damage():
    life = three_clusters()
    medium = Medium(life.medium.at_rest)
    for slot in (0, 1):
        medium.bytes[HEAD + slot * CLUSTER_SIZE] ^= 1
    with pytest.raises(DamageError) as caught:
        recover(medium, life.uuid, life.extent, clean=False)
    assert caught.value.journal == life.extent.id
    assert caught.value.offset == EXTENTS_OFFSET
