"""Workers that are killed: who is told what, what is lost, and that everybody else goes on."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from store_records import assert_holds, digest, hashes, info, rows
from worker_stores import SMALL, Told, all_serve, is_running, keys_of, kill, pids, until

import siltstone
from siltstone.errors import OutcomeUnknownError, ShardAwayError, ShardStoppedError
from siltstone.format.superblock import EMPTY
from siltstone_workers.host import ProcessHost

if TYPE_CHECKING:
    from pathlib import Path

    from siltstone.format.superblock import Extent


# ---- one death


def test_what_was_flushed_is_there_after_a_death(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, **SMALL) as store:
        store.put_many(*rows(range(5000)))
        store.flush()
        for pid in pids(store):
            kill(pid)
        until(lambda: [w.restarts for w in store.workers()] == [1, 1] and all_serve(store), "both are back")
        assert_holds(store, range(5000))
        store.put_many(*rows(range(5000, 6000)))
        store.flush()
        assert_holds(store, range(6000))
    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        assert_holds(store, range(6000))


def test_others_answer_while_a_worker_is_away(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, **SMALL) as store:
        dead, alive = keys_of(store, 0, 2, 200), keys_of(store, 1, 2, 200)
        store.put_many(*rows(dead))
        store.put_many(*rows(alive))
        store.flush()
        # The next one waits for its turn: the gap lasts until the test lets it end.
        keeper = store._core.shards._keepers[0]
        waits, gate = threading.Event(), threading.Event()
        restart = keeper.place.prepare
        keeper.place.prepare = lambda: (waits.set(), gate.wait(), restart())[2]
        kill(pids(store)[0])
        # Not only that its state says so, which comes before readers are kept out of what it left.
        until(waits.is_set, "it is away")
        assert store.workers()[0].state == "away"
        try:
            assert_holds(store, alive)
            store.put(info(alive[0], version=3))
            store.flush()
            assert store.get(digest(alive[0])) == info(alive[0], version=3)
            for call in (
                lambda: store.get(digest(dead[0])),
                lambda: store.get_many(hashes(dead + alive)),
                lambda: store.put(info(dead[0], version=9)),
                lambda: store.delete(digest(dead[0])),
            ):
                with pytest.raises(ShardAwayError) as caught:
                    call()
                assert caught.value.worker == 0
        finally:
            gate.set()
        until(lambda: all_serve(store), "it is back")
        assert_holds(store, dead)
        assert store.get(digest(dead[0])) == info(dead[0])


def test_a_worker_that_serves_again_is_never_found_away(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        store.put(info(1))
        store.flush()
        lookups = store._core.shards._lookups
        renew, found = lookups.renew, []

        def look_first(pending: object) -> None:
            # What a caller meets that comes just before readers look into the new memory.
            if all_serve(store):
                try:
                    found.append(store.get(digest(1)))
                except ShardAwayError as error:
                    found.append(error)
            renew(pending)

        lookups.renew = look_first
        kill(pids(store)[0])
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is back")
        lookups.renew = renew
        found.append(store.get(digest(1)))
        assert all(each == info(1) for each in found), found


def test_each_thread_that_put_is_told_of_a_loss_once(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        put, killed = threading.Barrier(4), threading.Event()

        def one(number: int) -> list[bool]:
            store.put(info(number))
            put.wait()
            assert killed.wait(60)
            told = []
            for _flush in range(3):
                try:
                    store.flush()
                except OutcomeUnknownError as error:
                    assert error.worker == 0
                    told.append(True)
                else:
                    told.append(False)
            return told

        with ThreadPoolExecutor(3) as pool:
            results = [pool.submit(one, number) for number in range(3)]
            put.wait()
            kill(pids(store)[0])
            until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is back")
            killed.set()
            assert [each.result() for each in results] == [[True, False, False]] * 3
        # This thread has put nothing, and others have been told.
        store.flush()


def test_a_loss_that_nobody_was_told_of_is_told_to_who_flushes_first(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        thread = threading.Thread(target=lambda: store.put(info(1)))
        thread.start()
        thread.join()
        kill(pids(store)[0])
        until(lambda: store.losses == 1 and all_serve(store), "it is back")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        store.flush()


def test_a_close_tells_what_nobody_was_told(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=1, **SMALL)
    store.put(info(1))
    kill(pids(store)[0])
    until(lambda: store.losses == 1, "it is noticed")
    with pytest.raises(OutcomeUnknownError):
        store.close()
    siltstone.open(tmp_path / "store.silt", workers=1).close()


@pytest.mark.parametrize("call", ["flush", "len", "delete"])
def test_a_request_that_a_worker_does_not_live_to_answer_ends_as_unknown(tmp_path: Path, call: str) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store, ThreadPoolExecutor(1) as pool:
        store.put(info(1))
        store.flush()
        process = store._core.shards._keepers[0].process
        kill(process.pid, signal.SIGSTOP)
        store.put(info(2))
        calls = {
            # Only what waits for the answer: a store's own flush also says what was lost.
            "flush": store.flush_only,
            "len": store.__len__,
            "delete": lambda: store.delete(digest(1)),
        }
        asked = pool.submit(calls[call])
        until(lambda: process._answers.expected, "it was asked")
        kill(process.pid)
        if call == "flush":
            # A flush leaves it to the caller's thread or task to be told of a loss.
            asked.result(60)
            assert store.losses == 1
        else:
            with pytest.raises(OutcomeUnknownError) as caught:
                asked.result(60)
            assert caught.value.pid == process.pid
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is back")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        assert store.get(digest(1)) == info(1)


def test_a_worker_is_started_again_behind_a_barrier_and_in_an_epoch_of_its_own(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, shards=2, **SMALL) as store:
        volume, keeper = store._core.volume, store._core.shards._keepers[0]
        store.put_many(*rows(range(4000)))
        store.flush()

        def empty() -> dict[int, Extent]:
            """The journal that each shard has ready."""
            return {each.shard: each for each in volume.superblock.extents if each.state == EMPTY}

        until(lambda: empty().keys() == {0, 1}, "each shard has a journal ready")
        before, steps = volume.superblock, []
        flush, prepare = volume.flush, keeper.place.prepare
        volume.flush = lambda: (flush(), steps.append(("flushed", volume.superblock)))[0]
        keeper.place.prepare = lambda: (steps.append(("prepared", volume.superblock)), prepare())[1]
        kill(pids(store)[0])
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is back")
        (barrier, at_barrier), (prepared, superblock), *_rest = steps
        # What the dead one left in the caches cannot vanish after it was read.
        assert (barrier, at_barrier.epoch) == ("flushed", before.epoch)
        assert (prepared, superblock.epoch) == ("prepared", before.epoch + 1)
        # It may have written to its own under the old generation; the other's worker still does.
        journals = {each.id: each for each in before.extents if each.state == EMPTY}
        for each in superblock.extents:
            if each.id in journals:
                assert (each.generation > before.sequence) == (each.shard == 0)
                assert each.shard == 0 or each.generation == journals[each.id].generation
        assert_holds(store, range(4000))


# ---- many deaths


@pytest.mark.parametrize("slow", [False, True])
def test_three_deaths_without_progress_stop_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """Who sees that it is stopped gets no answer any more, however long it takes to keep readers out."""
    store = siltstone.open(tmp_path / "store.silt", workers=2, **SMALL)
    if slow:
        usual = ProcessHost._renew_reader

        def renew(host: ProcessHost) -> None:
            time.sleep(0.2)
            usual(host)

        monkeypatch.setattr(ProcessHost, "_renew_reader", renew)
    dead, alive = keys_of(store, 0, 2, 50), keys_of(store, 1, 2, 50)
    store.put_many(*rows(dead))
    store.put_many(*rows(alive))
    store.flush()
    for death in range(3):
        until(lambda: store.workers()[0].state in ("serving", "stopped"), "it serves or is stopped")
        worker = store.workers()[0]
        if worker.state == "stopped":
            break
        kill(worker.pid)
        until(lambda pid=worker.pid: store.workers()[0].pid != pid, f"death {death} is noticed")
    until(lambda: store.workers()[0].state == "stopped", "it is stopped")
    assert "SIGKILL" in store.workers()[0].last_error
    with pytest.raises(ShardStoppedError) as caught:
        store.get(digest(dead[0]))
    assert "SIGKILL" in str(caught.value)
    assert_holds(store, alive)
    store.put(info(alive[0], version=2))
    store.flush()
    with pytest.raises(ShardStoppedError):
        store.close()
    with siltstone.open(tmp_path / "store.silt", workers=2) as again:
        assert_holds(again, dead)
        assert again.get(digest(alive[0])) == info(alive[0], version=2)


def test_whatever_is_killed_no_flushed_write_is_lost_and_no_answer_invented(
    tmp_path: Path, full_battery: bool
) -> None:
    deaths, seed = 2000 if full_battery else 12, random.randrange(1 << 32)
    print(f"seed {seed}")
    path = tmp_path / "store.silt"
    store = siltstone.open(path, workers=2, shards=4, **SMALL)
    over = threading.Event()

    def work(told: Told, chance: random.Random) -> Told:
        while not over.is_set():
            for _operation in range(chance.randrange(1, 30)):
                key = chance.choice(told.keys)
                if chance.random() < 0.2:
                    told.delete(store, key)
                else:
                    told.put(store, key)
            told.flush(store)
            if chance.random() < 0.1:
                told.check(store)
        return told

    callers = [Told(range(start, start + 60)) for start in (0, 1000, 2000)]
    with ThreadPoolExecutor(len(callers)) as pool:
        results = [
            pool.submit(work, told, random.Random(seed + number)) for number, told in enumerate(callers)
        ]
        chance = random.Random(seed)

        def have_flushed(before: list[int]) -> bool:
            for result in results:
                if result.done():
                    result.result()  # what it found wrong
            return all(told.flushes > count + 1 for told, count in zip(callers, before, strict=True))

        try:
            for death in range(deaths):
                # In the middle of whatever it does by then, after it has got something done, or it would be stopped:
                # of two flushes the second began when all served.
                until(lambda: all_serve(store), f"all serve before death {death}")
                flushes = [told.flushes for told in callers]
                until(lambda before=flushes: have_flushed(before), f"everybody flushed before death {death}")
                victim = chance.choice(pids(store))
                kill(victim)
                # Noticed as well: else it would still count as serving before the next death.
                until(lambda pid=victim: pid not in pids(store), "it is gone")
                assert not is_running(victim)
        finally:
            over.set()
        for result in results:
            result.result()
    until(lambda: all_serve(store), "all serve in the end")
    for told in callers:
        told.check(store, away=False)
    # Without it the test shows nothing.
    assert sum(told.unknown for told in callers) > 0
    store._core.abandon()
    with siltstone.open(path, workers=0) as again:
        for told in callers:
            told.check(again, away=False)


def test_a_store_opens_with_any_other_number_of_workers(tmp_path: Path) -> None:
    written = 0
    for workers in (0, 3, 1, 8, 2, 0):
        with siltstone.open(tmp_path / "store.silt", workers=workers, **SMALL) as store:
            assert len(store.workers()) == workers
            assert_holds(store, range(written))
            store.put_many(*rows(range(written, written + 3000)))
            written += 3000
            assert len(store) == written
