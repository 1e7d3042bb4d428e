"""How several shards of a process roll together, and what comes of it where something fails of that in one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from filling_store import MIB
from store_faults import failing, input_output_error, nothing
from store_records import assert_holds

from siltstone.errors import DiskFullError, MediumError, PoisonedError
from siltstone.format.superblock import ACTIVE, EMPTY, KIND_JOURNAL
from siltstone.journal.sealed import SealedJournal
from siltstone.shard.changes import Roll, TakeNext
from siltstone.shard.rolling import close_active
from siltstone.shard.space import taken_by
from siltstone.shard.spares import make_spares


def rolled(before, after):
    return [old != new for old, new in zip(before, after, strict=True)]


def test_shards_that_fill_alike_roll_with_one_superblock_write(filling):
    filling.fill()
    before = filling.journals()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    # Whoever puts waits for none of it.
    assert filling.writes_and_flushes(lambda: filling.put(batches=4)) == (0, 0)
    assert all(rolled(before, filling.journals()))
    # One flush for the journals, two for the superblock.
    assert filling.writes_and_flushes(filling.group.tick) == (1, 3)
    assert filling.writes_and_flushes(filling.group.tick) == (0, 0)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def roll_and_want_the_next(filling):
    """Let all shards roll, and fill as much that the journals behind those that take the writes now are wanted."""
    filling.fill()
    before = filling.journals()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    filling.put(batches=4)
    assert all(rolled(before, filling.journals()))
    filling.put_until_next_are_wanted()
    assert all(shard.turned and shard.spare is None for shard in filling.shards)


def test_rolls_and_the_journals_behind_them_take_one_superblock_write(filling):
    roll_and_want_the_next(filling)
    # One flush for the journals, two for the superblock, and one for the journals behind.
    assert filling.writes_and_flushes(filling.group.tick) == (1, 4)
    assert all(shard.spare is not None and not shard.turned for shard in filling.shards)
    assert filling.writes_and_flushes(filling.group.tick) == (0, 0)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def test_a_shard_whose_journal_has_room_left_does_not_roll_with_others(filling):
    filling.put_until_next_are_wanted()
    filling.group.tick()
    before = filling.journals()
    filling.put_into(filling.shards[1], filling.shards[1].journal.room // 50 + 100)
    assert rolled(before, filling.journals()) == [False, True, False, False]


def test_a_shard_whose_next_journal_would_not_take_the_batch_either_does_not_roll_with_others(filling):
    filling.fill()
    before = filling.journals()
    filling.put_into(filling.shards[0], filling.shards[1].spare.room // 50 + 100)
    assert rolled(before, filling.journals()) == [True, False, False, False]


def test_a_shard_that_cannot_flush_keeps_no_other_from_rolling(filling, faults):
    filling.fill()
    count, before = filling.count, filling.journals()
    first, bad = filling.shards[0], filling.shards[2]
    # So that it has something to flush.
    filling.put_into(bad, 1)
    failed = []

    def fail(_inner, offset, _data):
        if 0 <= offset - bad.journal.extent.offset < bad.journal.extent.length:
            failed.append(offset)
            raise input_output_error("write", offset)

    faults.write = fail
    filling.put_into(first, 1200)
    faults.write = nothing
    assert failed
    assert rolled(before, filling.journals()) == [True, True, False, True]
    for act in (lambda: filling.put_into(bad, 1), filling.store.flush):
        with pytest.raises(PoisonedError, match=f"journal {before[2]}"):
            act()
    filling.put_into(first, 1)
    with filling.reopened() as store:
        assert_holds(store, range(count))


def assert_all_are_told(filling, count):
    """Nobody can put any more, and of what was flushed nothing is lost."""
    for shard in filling.shards:
        with pytest.raises(PoisonedError):
            filling.put_into(shard, 1)
    assert_holds(filling.store, range(count))
    with filling.reopened() as store:
        assert_holds(store, range(count))


def test_a_flush_behind_a_roll_makes_that_durable_first(filling):
    filling.fill()
    filling.put_into(filling.shards[0], 1)
    filling.put(batches=4)
    # For the old journals, for each slot of the superblock, and for the new journals.
    assert filling.writes_and_flushes(filling.store.flush) == (1, 4)
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def complete(filling, by):
    """Let a flush, or housekeeping and then a flush, make the last rolls durable."""
    if by == "housekeeping":
        filling.group.tick()
    filling.store.flush()


@pytest.mark.parametrize("by", ["flush", "housekeeping"])
def test_a_flush_that_fails_for_several_is_told_to_the_writers_of_all(filling, faults, by):
    filling.fill()
    count, before = filling.count, filling.journals()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    filling.put(batches=4)
    assert all(rolled(before, filling.journals()))
    faults.flush = failing("flush")
    with pytest.raises((MediumError, PoisonedError)):
        complete(filling, by)
    faults.flush = nothing
    assert_all_are_told(filling, count)


@pytest.mark.parametrize("by", ["flush", "housekeeping"])
def test_a_superblock_that_fails_for_several_is_told_to_the_writers_of_all(filling, faults, by):
    filling.fill()
    count = filling.count

    def fail(_inner, offset, _data):
        if offset < MIB:
            raise input_output_error("write", offset)

    filling.put(batches=4)
    faults.write = fail
    with pytest.raises((MediumError, PoisonedError)):
        complete(filling, by)
    faults.write = nothing
    with pytest.raises(PoisonedError):
        filling.store.flush()
    assert_all_are_told(filling, count)


@pytest.mark.parametrize(
    "error", [DiskFullError("no space", url="faulty"), input_output_error("grow")], ids=["space", "medium"]
)
def test_where_the_volume_cannot_grow_rolls_are_complete_without_the_journals_behind(filling, faults, error):
    roll_and_want_the_next(filling)
    tries = []

    def grow(_inner, size):
        tries.append(size)
        raise error.to_keep()

    faults.grow = grow
    # One write of the superblock: the one that could not grow it wrote nothing.
    assert filling.writes_and_flushes(filling.group.tick) == (1, 3)
    assert len(tries) == 1
    assert all(shard.spare is None and not shard.turned for shard in filling.shards)
    faults.grow = nothing
    filling.store.flush()
    filling.put(batches=12)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def at_new_journals(filling, act):
    """A hook for writes that calls `act` with the offset of those to journals which are not there yet."""
    known = [extent for extent in filling.group.volume.superblock.extents if extent.state in (ACTIVE, EMPTY)]

    def hook(_inner, offset, _data):
        if offset >= MIB and not any(extent.offset <= offset < extent.stop for extent in known):
            act(offset)

    return hook


def test_next_journals_that_cannot_be_made_ready_are_given_back_and_the_rolls_are_complete(filling, faults):
    roll_and_want_the_next(filling)
    failed = []

    def fail(offset):
        failed.append(offset)
        raise input_output_error("write", offset)

    faults.write = at_new_journals(filling, fail)
    filling.group.tick()
    assert failed
    faults.write = nothing
    assert all(shard.spare is None and not shard.turned for shard in filling.shards)
    after = filling.group.volume.superblock
    assert not [extent for extent in after.extents if extent.state == EMPTY and extent.kind == KIND_JOURNAL]
    # Nor does housekeeping rest from what did not fail.
    while not all(shard.turned for shard in filling.shards):
        filling.put()
    filling.group.tick()
    assert not any(shard.turned for shard in filling.shards)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def test_a_flush_does_not_wait_until_next_journals_are_ready(filling, faults):
    roll_and_want_the_next(filling)
    begun, may_go_on = threading.Event(), threading.Event()

    def hold(_offset):
        begun.set()
        assert may_go_on.wait(30)

    faults.write = at_new_journals(filling, hold)
    keeping = threading.Thread(target=filling.group.tick)
    keeping.start()
    try:
        assert begun.wait(30)
        filling.put_into(filling.shards[0], 1)
        flushing = threading.Thread(target=filling.store.flush)
        flushing.start()
        flushing.join(30)
        assert not flushing.is_alive()
    finally:
        may_go_on.set()
        keeping.join()
    faults.write = nothing
    assert all(shard.spare is not None for shard in filling.shards)
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def test_a_shard_that_has_got_another_next_journal_meanwhile_gives_this_one_back(filling, faults):
    roll_and_want_the_next(filling)
    first = filling.shards[0]
    publish = filling.group.volume.publish

    def publish_and_make_one(change, **options):
        superblock = publish(change, **options)
        if isinstance(change, Roll):
            filling.group.volume.publish = publish
            # Whoever puts is as fast as that: it has just been taken, and is not ready.
            first.spare = first.new_journal(taken_by(publish(TakeNext(((0, MIB),))), 0))
            first.spare.prepare()
        return superblock

    filling.group.volume.publish = publish_and_make_one
    filling.group.tick()
    empty = [
        extent.shard
        for extent in filling.group.volume.superblock.extents
        if extent.state == EMPTY and extent.kind == KIND_JOURNAL
    ]
    assert sorted(empty) == [0, 1, 2, 3]
    filling.put(batches=12)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def turn(filling, shard):
    """Put until the next journal of a shard takes the writes, and the superblock does not know it yet."""
    before = shard.journal.extent.id
    while shard.journal.extent.id == before:
        filling.put_into(shard, 20)
    assert shard.turned


def test_a_shard_whose_last_roll_is_not_complete_does_not_roll_with_others(filling):
    filling.fill()
    first = filling.shards[0]
    turn(filling, first)
    second = next(shard for shard in filling.shards if not shard.turned)
    # Its next one is as full by now, and the one after that is ready.
    make_spares([first])
    while first.journal.room > 900:
        filling.put_into(first, max(1, first.journal.room // 60))
    assert first.turned
    assert first.spare is not None
    before = filling.journals()
    turn(filling, second)
    assert rolled(before, filling.journals())[0] is False
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def test_there_is_no_roll_behind_one_that_has_failed(filling):
    filling.fill()
    first = filling.shards[0]
    turn(filling, first)
    first.closing.fail(MediumError("EIO", operation="flush"))
    for _attempt in range(2):
        with filling.group._flush_lock, pytest.raises(PoisonedError):
            close_active(first)
        with pytest.raises(PoisonedError):
            filling.put_into(first, 20_000)
        with pytest.raises(PoisonedError):
            filling.store.flush()


def test_a_flush_for_others_that_fails_behind_a_roll_is_told_for_good(filling, faults):
    """What was put behind the roll counts only behind what the flush may have lost."""
    filling.fill()
    count, (first, second, *_others) = filling.count, filling.shards
    filling.put_into(first, 1)
    turn(filling, first)
    filling.put_into(second, 1)
    faults.flush = failing("flush")
    with pytest.raises(MediumError):
        # As for a note, or for what is packed.
        filling.group.flush(only=[second])
    faults.flush = nothing
    for _attempt in range(2):
        with pytest.raises(PoisonedError):
            filling.put_into(first, 1)
        with pytest.raises(PoisonedError):
            filling.store.flush()
        with filling.group._flush_lock, pytest.raises(PoisonedError):
            close_active(first)
    with filling.reopened() as store:
        assert_holds(store, range(count))


def test_an_interrupt_between_two_ends_of_a_flush_leaves_nothing_begun(filling, monkeypatch):
    filling.fill()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    usual, ended = SealedJournal.end_flush, []

    def end_flush(journal):
        ended.append(journal)
        if len(ended) == 2:
            raise KeyboardInterrupt
        usual(journal)

    filling.put(batches=4)
    with monkeypatch.context() as patch:
        patch.setattr(SealedJournal, "end_flush", end_flush)
        with pytest.raises(KeyboardInterrupt):
            filling.store.flush()
    filling.store.flush()
    given = np.concatenate(filling.given)
    assert_holds(filling.store, given)
    with filling.reopened() as store:
        assert_holds(store, given)
