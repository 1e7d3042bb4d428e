"""What several shards of a process do together: next journals, rolls, checkpoints; and what fails of it in one."""

from __future__ import annotations

import random
import signal
import threading

import numpy as np
import pytest
from store_faults import Faults, failing, input_output_error, nothing
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, hashes, rows

import siltstone
from siltstone.errors import DiskFullError, MediumError, PoisonedError
from siltstone.journal.sealed import SealedJournal
from siltstone.shard import checkpoint
from siltstone.shard.checkpoint import due_checkpoints
from siltstone.shard.locking import holding
from siltstone.shard.spares import make_spares, wants_spare

MIB = 1 << 20
SHARDS = 4
#: records of one put, and the bytes of them that come to one shard, generously
BATCH = 400
PART = BATCH * 60 // SHARDS


class Filling:
    """A store that is put to batch by batch, so that its shards fill alike."""

    def __init__(self, path, faults) -> None:
        self.path = path
        self.faults = faults
        self.store = open_settled(Medium(f"faulty:{path}"), faults.host())
        self.group = self.store._core.shards.group
        self.shards = list(self.group.shards.values())
        self.count = 0
        #: the numbers of what was put
        self.given = []

    def put(self, batches=1):
        """Put more records than any that were put before."""
        records = range(self.count, self.count + batches * BATCH)
        self.count = records.stop
        self.store.put_many(*rows(records))
        self.given.append(np.asarray(records))

    def put_until_next_are_wanted(self):
        while not any(map(wants_spare, self.shards)):
            self.put()

    def fill(self):
        """Make the next journals ready, and put until the active ones hardly take anything; all that is durable."""
        self.put_until_next_are_wanted()
        self.group.tick()
        while not any(shard.journal.room < PART for shard in self.shards):
            self.put()
        self.store.flush()
        assert all(shard.spare is not None and shard.journal.room < 2 * PART for shard in self.shards)

    def put_into(self, shard, count):
        """Put so many records that are this shard's, and no others."""
        candidates = range(self.count, self.count + (count + 100) * 2 * SHARDS)
        self.count = candidates.stop
        mine = self.store._core.router.shards_of(self.store._default.id, hashes(candidates)) == shard.number
        numbers = np.asarray(candidates)[mine][:count]
        assert len(numbers) == count
        self.store.put_many(*rows(numbers))
        self.given.append(numbers)

    def journals(self):
        return [shard.journal.extent.id for shard in self.shards]

    def writes_and_flushes(self, act):
        """How often the superblock was written, in two slots each time, and how often the medium flushed."""
        self.faults.log.clear()
        act()
        slots = [offset for what, offset, _length in self.faults.log if what == "write" and offset < MIB]
        assert len(slots) % 2 == 0
        return len(slots) // 2, sum(what == "flush" for what, _offset, _length in self.faults.log)

    def reopened(self):
        """Give the store up as a process that dies does, and open it again."""
        self.faults.write = self.faults.flush = nothing
        self.store._core.abandon()
        return siltstone.open(self.path)


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def filling(path, host, faults):
    create_settled(Medium(str(path)), host, shards=SHARDS)
    made = Filling(path, faults)
    yield made
    faults.write = faults.flush = nothing
    made.store._core.abandon()


def used_of(store):
    return [extent for extent in store.info().extents if extent.state != "free"]


def rolled(before, after):
    return [old != new for old, new in zip(before, after, strict=True)]


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


def test_shards_that_fill_alike_roll_with_one_superblock_write(filling):
    filling.fill()
    before = filling.journals()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    # One flush for the journals, two for the superblock.
    assert filling.writes_and_flushes(lambda: filling.put(batches=4)) == (1, 3)
    assert all(rolled(before, filling.journals()))
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


def test_a_flush_that_fails_for_several_is_told_to_the_writers_of_all(filling, faults):
    filling.fill()
    count, before = filling.count, filling.journals()
    for shard in filling.shards:
        filling.put_into(shard, 1)
    faults.flush = failing("flush")
    with pytest.raises((MediumError, PoisonedError)):
        filling.put(batches=4)
    faults.flush = nothing
    assert filling.journals() == before
    assert_all_are_told(filling, count)


def test_a_superblock_that_fails_for_several_is_told_to_the_writers_of_all(filling, faults):
    filling.fill()
    count = filling.count

    def fail(_inner, offset, _data):
        if offset < MIB:
            raise input_output_error("write", offset)

    faults.write = fail
    with pytest.raises((MediumError, PoisonedError)):
        filling.put(batches=4)
    faults.write = nothing
    assert_all_are_told(filling, count)


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

    with monkeypatch.context() as patch:
        patch.setattr(SealedJournal, "end_flush", end_flush)
        with pytest.raises(KeyboardInterrupt):
            filling.put(batches=4)
    filling.store.flush()
    given = np.concatenate(filling.given)
    assert_holds(filling.store, given)
    with filling.reopened() as store:
        assert_holds(store, given)


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
