"""What several shards of a process do together: next journals and checkpoints; and what fails of it in one."""

from __future__ import annotations

import random
import signal
import threading

import numpy as np
import pytest
from filling_store import MIB, SHARDS
from store_faults import input_output_error, nothing
from store_records import assert_holds

from siltstone.errors import DiskFullError, MediumError, PoisonedError
from siltstone.shard import checkpoint
from siltstone.shard.checkpoint import due_checkpoints
from siltstone.shard.locking import holding
from siltstone.shard.spares import make_spares


def used_of(store):
    return [extent for extent in store.info().extents if extent.state != "free"]


def test_next_journals_cost_one_superblock_write_and_one_flush(filling):
    filling.put_until_next_are_wanted()
    # Each of the two slots of a superblock is flushed for itself.
    assert filling.writes_and_flushes(filling.group.tick) == (1, 3)
    assert all(shard.spare is not None for shard in filling.shards)


def test_next_journals_that_cannot_be_made_ready_give_all_their_space_back(filling, faults):
    filling.put_until_next_are_wanted()
    before = used_of(filling.store)
    slots = 0

    def full_at_the_last(_inner, offset, _data):
        nonlocal slots
        slots += offset >= MIB
        if offset >= MIB and slots == 2 * SHARDS:
            raise DiskFullError("faulty: no space", url="faulty", needed=1)

    for _attempt in range(3):
        slots = 0
        faults.write = full_at_the_last
        with pytest.raises(DiskFullError):
            make_spares(filling.shards)
        assert slots == 2 * SHARDS
        assert not any(shard.spare for shard in filling.shards)
        assert used_of(filling.store) == before
    faults.write = nothing
    make_spares(filling.shards)
    assert all(shard.spare is not None for shard in filling.shards)
    filling.put(batches=20)
    filling.store.flush()
    with filling.reopened() as store:
        assert_holds(store, np.concatenate(filling.given))


def test_where_not_all_next_journals_find_space_some_do(filling, faults):
    filling.put_until_next_are_wanted()
    limit = filling.store.info().volume_bytes + 3 * MIB

    def full(_inner, size):
        if size > limit:
            raise DiskFullError("faulty: no space", url="faulty", needed=size)

    faults.grow = full
    filling.group.tick()
    assert any(shard.spare for shard in filling.shards)


def test_checkpoints_that_are_due_alike_are_written_together(filling, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES_MIN", MIB)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES_A_RECORD", 0)
    while not due_checkpoints(filling.shards):
        filling.put()
    assert due_checkpoints(filling.shards) == [filling.shards]
    size = filling.shards[0].store.index.bytes
    monkeypatch.setattr(checkpoint, "CHECKPOINT_MEMORY", 2 * size + size // 2)
    # No more copies in memory than that, and one where even that is too much.
    assert [len(group) for group in due_checkpoints(filling.shards)] == [2, 2]
    monkeypatch.setattr(checkpoint, "CHECKPOINT_MEMORY", 1)
    assert due_checkpoints(filling.shards) == [[shard] for shard in filling.shards]
    # Others that are not nearly due wait.
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES_MIN", 2 * MIB)
    while not due_checkpoints(filling.shards):
        filling.put_into(filling.shards[3], 500)
    assert due_checkpoints(filling.shards) == [[filling.shards[3]]]


def small_checkpoints(monkeypatch):
    """Checkpoints of few bytes, for shards of any number of records."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES_MIN", 240_000)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES_A_RECORD", 0)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS_MIN", 0)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("number", [0, 2])
def test_a_shard_that_cannot_flush_keeps_no_other_from_its_checkpoint(
    filling, faults, monkeypatch, number, broken
):
    small_checkpoints(monkeypatch)
    filling.put(batches=50)
    filling.store.flush()
    bad = filling.shards[number]
    assert filling.shards in due_checkpoints(filling.shards)

    def fail(_inner, offset, _data):
        if 0 <= offset - bad.journal.extent.offset < bad.journal.extent.length:
            raise input_output_error("write", offset)

    # Known before, or found in the middle of it.
    filling.put_into(bad, 1)
    faults.write = fail
    if broken:
        with pytest.raises((MediumError, PoisonedError)):
            filling.store.flush()
        filling.group.tick()
    else:
        with pytest.raises(MediumError):
            filling.group.upkeep.checkpoint(filling.shards)
    faults.write = nothing
    assert [shard.store.checkpointed is not None for shard in filling.shards] == [
        shard is not bad for shard in filling.shards
    ]
    assert due_checkpoints(filling.shards) == []


def test_where_not_all_checkpoints_find_space_some_do(filling, faults, monkeypatch):
    small_checkpoints(monkeypatch)
    filling.put(batches=50)
    filling.store.flush()
    # The space of about two.
    limit = filling.store.info().volume_bytes + 6 * filling.shards[0].store.index.bytes

    def full(_inner, wanted):
        if wanted > limit:
            raise DiskFullError("faulty: no space", url="faulty", needed=wanted)

    faults.grow = full
    filling.group.tick()
    assert 0 < sum(shard.store.checkpointed is not None for shard in filling.shards) < SHARDS


def test_checkpoints_that_fail_are_due_as_before(filling, faults, monkeypatch):
    small_checkpoints(monkeypatch)
    filling.put(batches=50)
    filling.store.flush()
    before = [shard.store.uncovered for shard in filling.shards]
    ends = [extent.offset + extent.length for extent in filling.store.info().extents]

    def fail(_inner, offset, _data):
        if offset >= max(ends):
            raise input_output_error("write", offset)

    faults.write = fail
    with pytest.raises(MediumError):
        filling.group.upkeep.checkpoint(filling.shards)
    faults.write = nothing
    assert [shard.store.uncovered for shard in filling.shards] == before
    filling.group.upkeep.checkpoint(filling.shards)
    assert all(shard.store.checkpointed is not None for shard in filling.shards)


def test_interrupts_leave_no_lock_held():
    """Signals at any step of taking and giving back locks."""
    locks = [threading.Lock() for _ in range(16)]
    chance = random.Random(5)
    armed, interrupted = False, 0

    def interrupt(_number, _frame):
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _attempt in range(5000):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 4e-5))
                holding(locks, lambda: None)
                armed = False
            except KeyboardInterrupt:
                interrupted += 1
            assert not any(lock.locked() for lock in locks)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
