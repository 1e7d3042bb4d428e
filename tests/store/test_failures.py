"""Transfers that fail: nothing more is acknowledged where something may be lost, and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from store_faults import Faults, at_call, failing, nothing
from store_media import Medium, create_settled, open_settled
from store_model import History, Operation, random_operation, seen_in, shards_of_keys
from store_records import assert_holds, digest, hashes, info, rows
from store_shadow import FAILURES, INTERRUPT, Shadow

import siltstone
from siltstone.errors import DiskFullError, MediumError, PoisonedError, SiltstoneError
from siltstone.shard.spares import wants_spare

SMALL = {"erase_block": 64 * 1024}
MIB = 1 << 20


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def store(path, faults):
    """A store of two shards on a faulty medium; the test ends its life."""
    opened = siltstone.open(f"faulty:{path}", shards=2, plugins=faults.host(), **SMALL)
    yield opened
    with contextlib.suppress(SiltstoneError):
        opened.close()


def of_shard(store, shard, count, start=0):
    """The first `count` numbers from `start` on whose records go to this shard."""
    numbers = np.arange(start, start + 64 * count)
    mine = store._core.router.shards_of(store._default.id, hashes(numbers)) == shard
    return numbers[mine][:count]


def journal_only(hook):
    """Let a hook see writes to extents alone, not to superblock slots."""
    return lambda inner, offset, data: hook(inner, offset, data) if offset >= MIB else None


# ---- one failure, step by step


def test_a_flush_that_fails_once_acknowledges_nothing_any_more(path, store, faults):
    store.put_many(*rows(range(100)))
    store.flush()
    store.put_many(*rows(range(100, 200)))
    faults.flush = at_call(1, failing("flush"))
    with pytest.raises(MediumError, match="flush"):
        store.flush()
    # From here on the medium says that all is well.
    flushes = len([1 for what, *_ in faults.log if what == "flush"])
    for _attempt in range(3):
        with pytest.raises(PoisonedError) as caught:
            store.flush()
        assert "EIO" in caught.value.cause
    assert len([1 for what, *_ in faults.log if what == "flush"]) == flushes, (
        "a flush that failed is not retried"
    )
    for call in (
        lambda: store.put(info(300)),
        lambda: store.put_many(*rows(range(300, 400))),
        lambda: store.delete_many(hashes(range(50))),
    ):
        with pytest.raises(PoisonedError):
            call()
    # Reads go on, and show what was there.
    assert_holds(store, range(200))
    with pytest.raises(PoisonedError):
        store.close()
    with siltstone.open(path) as reopened:
        assert not reopened.info().clean
        assert_holds(reopened, range(100))
        assert len(reopened) in range(100, 201)
        reopened.put(info(300))
        reopened.flush()


def test_shards_that_had_nothing_to_lose_go_on(path, store, faults):
    first, second = of_shard(store, 0, 100), of_shard(store, 1, 100)
    store.put_many(*rows(first[:50]))
    store.put_many(*rows(second[:50]))
    store.flush()
    store.put_many(*rows(first[50:]))
    faults.flush = at_call(1, failing("flush"))
    with pytest.raises(MediumError):
        store.flush()
    with pytest.raises(PoisonedError):
        store.put_many(*rows(first[:1]))
    store.put_many(*rows(second[50:]))
    # It cannot vouch for all; what it can flush, it does.
    with pytest.raises(PoisonedError):
        store.flush()
    assert_holds(store, [*first, *second])
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, [*first[:50], *second])


def test_a_flush_that_fails_while_a_spare_is_made_ready_may_have_lost_what_others_wrote(path, host, faults):
    """It is the housekeeper's flush, and nobody waits for it; but what it lost, no later flush brings back."""
    create_settled(Medium(str(path)), host, shards=2)
    store = open_settled(Medium(f"faulty:{path}"), faults.host())
    first, second = of_shard(store, 0, 1500), of_shard(store, 1, 500)
    for start in range(0, 1500, 100):
        if wants_spare(store._core.shards.group.shards[0]):
            break
        store.put_many(*rows(first[start : start + 100]))
    store.put_many(*rows(second[:100]))
    store.flush()

    def put_meanwhile(_inner, _offset, data):
        # The slots of the spare are written one by one, after the superblock that names it.
        states = [each.state for each in store._core.volume.superblock.extents]
        if len(memoryview(data)) == 4096 and "empty" in states:
            faults.write = Faults().write
            store.put_many(*rows(second[100:]))
            faults.flush = at_call(1, failing("flush"))

    faults.write = journal_only(put_meanwhile)
    store._core.shards.group.tick()
    assert_holds(store, second)
    assert faults.flush is not nothing, "the spare was made, and somebody put meanwhile"
    with pytest.raises(SiltstoneError):
        store.flush()
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, second[:100])


@pytest.mark.parametrize("at", ["put", "flush"])
def test_a_write_that_fails_once_acknowledges_nothing_any_more(path, store, faults, at):
    mine = of_shard(store, 0, 3000)
    store.put_many(*rows(mine[:100]))
    store.flush()
    if at == "flush":
        store.put_many(*rows(mine[100:103]))
    faults.write = journal_only(at_call(1, failing("write")))
    with pytest.raises(MediumError, match="write"):
        store.put_many(*rows(mine[100:1500])) if at == "put" else store.flush()
    faults.write = Faults().write
    with pytest.raises(PoisonedError):
        store.put_many(*rows(mine[1500:]))
    with pytest.raises(PoisonedError):
        store.flush()
    assert_holds(store, mine[:100])
    with pytest.raises(PoisonedError):
        store.close()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, mine[:100])
        if at == "put":
            assert len(reopened) == 100


def test_a_batch_given_up_for_lack_of_space_is_nowhere_and_the_store_closes_cleanly(path, store, faults):
    mine = of_shard(store, 0, 1500)
    store.put_many(*rows(mine[:150]))

    def half_full(inner, offset, data):
        inner.write(offset, memoryview(data)[: len(memoryview(data)) // 2 // 4096 * 4096])
        raise DiskFullError("faulty: no space", url="faulty", operation="write", needed=1)

    faults.write = journal_only(at_call(1, half_full))
    with pytest.raises(DiskFullError):
        store.put_many(*rows(mine[150:]))
    assert len(store) == 150
    store.close()
    for _opening in range(2):
        with siltstone.open(path) as reopened:
            assert reopened.info().clean
            assert len(reopened) == 150
            assert_holds(reopened, mine[:150])


def test_after_a_batch_given_up_the_next_one_goes_to_the_next_journal(path, store, faults):
    mine = of_shard(store, 0, 3000)
    store.put_many(*rows(mine[:150]))

    def half_full(inner, offset, data):
        inner.write(offset, memoryview(data)[: len(memoryview(data)) // 2 // 4096 * 4096])
        raise DiskFullError("faulty: no space", url="faulty", operation="write", needed=1)

    faults.write = journal_only(at_call(1, half_full))
    with pytest.raises(DiskFullError):
        store.put_many(*rows(mine[150:1500]))
    store.put_many(*rows(mine[1500:], 1))
    store.flush()
    assert len(store) == 1650
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert len(reopened) == 1650
        assert_holds(reopened, mine[:150])
        assert_holds(reopened, mine[1500:], 1)


@pytest.mark.parametrize("mapped", [True, False])
def test_what_was_flushed_before_a_roll_is_found_behind_it(path, faults, mapped):
    """The last cluster of the journal before is where the flush wrote it, and nobody has written it since."""
    faults.mapped = mapped
    with siltstone.open(f"faulty:{path}", shards=1, workers=0, plugins=faults.host(), **SMALL) as store:
        (shard,) = store._core.shards.group.shards.values()
        for number in range(10):
            store.put(info(number))
        store.flush()
        before = shard.journal
        store.put_many(*rows(range(1000, 1000 + before.room // 50 + 1000)))
        assert shard.journal is not before
        assert_holds(store, range(10))


@pytest.mark.parametrize("mapped", [True, False])
def test_a_medium_that_cannot_be_mapped_serves_as_well(path, faults, mapped):
    faults.mapped = mapped
    for life in range(3):
        with siltstone.open(f"faulty:{path}", shards=2, plugins=faults.host(), **SMALL) as store:
            if life:
                assert_holds(store, range(5000), life - 1)
            for start in range(0, 5000, 500):
                store.put_many(*rows(range(start, start + 500), life))
            assert_holds(store, range(5000), life)
            assert store.delete(digest(1))
            store.put(info(1, life))


# ---- every transfer of a life fails once


def one_life(path, host, history, shards):
    """Calls on a store, some of which may fail; the history knows what was acknowledged."""
    store = open_settled(Medium(f"faulty:{path}"), host, shards=shards)
    chance = np.random.default_rng(11)
    shown = seen_in(store)
    for number in range(1, 22):
        attempt(store, history, shown, random_operation(chance, number, rows_max=2500))
        if number % 3 == 0:
            with contextlib.suppress(SiltstoneError, KeyboardInterrupt):
                store.flush()
                history.settle()
        if number % 2 == 0:
            with contextlib.suppress(KeyboardInterrupt):
                store._core.shards.group.tick()
    return store


def attempt(store, history, shown, operation):
    """Do an operation to a store and to what it shows. Where it fails, each shard has taken its batch or not."""
    before, after = shown.copy(), shown
    operation.change(after)
    try:
        operation.run(store)
    except (SiltstoneError, KeyboardInterrupt):
        shards, seen = shards_of_keys(store), seen_in(store)
        kept = np.zeros(len(operation.keys), bool)
        for number, shard in store._core.shards.group.shards.items():
            mine = shards == number
            taken = np.array_equal(seen[mine], after[mine])
            assert taken or np.array_equal(seen[mine], before[mine]), (
                f"shard {number} shows a part of a batch"
            )
            # Nothing comes behind it where the journal is poisoned, and a write that failed may have been done.
            poisoned = shard.journal is not None and shard.journal.poison is not None
            if taken or poisoned:
                kept |= mine[operation.keys]
        shown[:] = seen
        operation = Operation(operation.call, operation.keys[kept], operation.values[kept])
    history.pending.append(operation)


def count_transfers(path, shards):
    """How many transfers a life has, without those of its making."""
    shadow = Shadow(path)
    one_life(path, shadow.host(), History(), shards)._core.abandon()
    return shadow.transfers


@pytest.mark.parametrize("sticky", [True, False], ids=["every later flush fails", "later flushes succeed"])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("shards", [1, 3])
def test_whatever_transfer_fails_what_was_acknowledged_is_there(
    quick_folder, host, shards, failure, sticky, full_battery
):
    # The cruellest one at more of them at every commit.
    step = 1 if full_battery else 3 if failure == "EIO" and not sticky else 9
    fail_each(quick_folder, host, shards, failure, sticky=sticky, start=FAILURES.index(failure), step=step)


@pytest.mark.parametrize("shards", [1, 3])
def test_wherever_it_is_interrupted_what_was_acknowledged_is_there(quick_folder, host, shards, full_battery):
    fail_each(quick_folder, host, shards, INTERRUPT, sticky=False, start=0, step=1 if full_battery else 3)


def fail_each(folder, host, shards, failure, *, sticky, start, step):
    """Let one transfer of a life after the other fail; each time the store that is left must be a legal one."""
    fresh = folder / "fresh.silt"
    create_settled(Medium(str(fresh)), host, shards=shards)
    open_settled(Medium(str(fresh)), host).close()
    contents = fresh.read_bytes()
    path = folder / "store.silt"
    path.write_bytes(contents)
    transfers = count_transfers(path, shards)
    assert transfers > 40
    for fail_at in range(1 + start % step, transfers + 1, step):
        for ending in ("close", "power cut"):
            path.write_bytes(contents)
            shadow = Shadow(path, fail_at, failure, sticky=sticky)
            history = History()
            try:
                clean = live_and_end(path, shadow, history, shards, ending)
                assert shadow.failed
                shadow.cut_power(random.Random(fail_at))
                with siltstone.open(path, plugins=host) as reopened:
                    assert reopened.info().clean or not clean
                    history.settle_as(seen_in(reopened), shards_of_keys(reopened))
            except (SiltstoneError, AssertionError) as error:
                raise AssertionError(f"transfer {fail_at} of {transfers}, {ending}: {error}") from error


def live_and_end(path, shadow, history, shards, ending):
    """One life on a medium that fails; whether it ended with a clean close."""
    try:
        store = one_life(path, shadow.host(), history, shards)
    except (SiltstoneError, KeyboardInterrupt):
        return False  # while it was being opened
    if ending == "power cut":
        store._core.abandon()
        return False
    try:
        store.close()
    except SiltstoneError:
        return False
    history.settle()
    return True
