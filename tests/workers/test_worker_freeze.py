"""Workers that are stopped, and cores that are gone: every call ends by its deadline, and nobody writes any more."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from real_media import child
from store_records import assert_holds, digest, info, rows
from worker_stores import (
    SMALL,
    all_serve,
    ends_within,
    is_running,
    keys_of,
    kill,
    pids,
    settle,
    until,
    workers_of,
)

import siltstone
from siltstone.errors import LockedError, OutcomeUnknownError, ShardAwayError, SiltstoneError
from siltstone_workers import process
from siltstone_workers.answers import Answer, Answers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

QUICK = siltstone.WorkerOptions(deadline=1.0)


def test_a_frozen_worker_is_replaced_and_nothing_flushed_is_lost(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, worker=QUICK, **SMALL) as store:
        frozen, alive = keys_of(store, 0, 2, 200), keys_of(store, 1, 2, 200)
        store.put_many(*rows([*frozen, *alive]))
        store.flush()
        pid = pids(store)[0]
        kill(pid, signal.SIGSTOP)
        store.put(info(frozen[0], version=5))
        # Without its worker: what is in the index, and what has not got there.
        assert_holds(store, frozen[1:])
        assert store.get(digest(frozen[0])) == info(frozen[0], version=5)
        assert_holds(store, alive)
        with ends_within(1.0), pytest.raises(OutcomeUnknownError) as caught:
            store.flush()
        assert caught.value.pid == pid
        assert "FLUSH within 1 s" in str(caught.value)
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is replaced")
        assert not is_running(pid)
        assert_holds(store, [*frozen[1:], *alive])
        assert store.get(digest(frozen[0])) in (info(frozen[0]), info(frozen[0], version=5))
        # What was lost with it has been told by the flush that found it out.
        store.flush()
        store.put(info(frozen[0], version=6))
        store.flush()
    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        assert_holds(store, [*frozen[1:], *alive])
        assert store.get(digest(frozen[0])) == info(frozen[0], version=6)


def test_the_deadline_of_a_flush_is_one_however_many_workers_are_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Counted(Answers):
        def wait(self, answer: Answer, seconds: float) -> bool:
            waits.append(seconds)
            return super().wait(answer, seconds)

    monkeypatch.setattr(process, "Answers", Counted)
    with siltstone.open(tmp_path / "store.silt", shards=8, workers=4, worker=QUICK, **SMALL) as store:
        for pid in pids(store):
            kill(pid, signal.SIGSTOP)
        store.put_many(*rows(range(100)))
        del waits[:]
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        # One after the other they would have got four deadlines. Behind these come those of workers that start.
        assert len(waits) >= 4
        assert sum(waits[:4]) < 2 * QUICK.deadline
        until(lambda: [each.restarts for each in store.workers()] == [1] * 4 and all_serve(store), "back")


@pytest.mark.parametrize("call", ["delete", "len", "batch"])
def test_calls_to_a_frozen_worker_end_by_the_deadline(tmp_path: Path, call: str) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, worker=QUICK, **SMALL) as store:
        store.put(info(1))
        store.flush()
        kill(pids(store)[0], signal.SIGSTOP)
        with ends_within(1.0), pytest.raises(OutcomeUnknownError):
            if call == "delete":
                store.delete(digest(1))
            elif call == "len":
                len(store)
            else:
                with store.batch() as batch:
                    batch.put_many(*rows(range(10, 2000)))
                store.flush()
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is replaced")
        settle(store)
        assert store.get(digest(1)) in (info(1), None if call == "delete" else info(1))


def test_puts_to_a_frozen_worker_end_once_there_is_no_room_on_the_way(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, worker=QUICK, **SMALL) as store:
        frozen, alive = keys_of(store, 0, 2, 2000), keys_of(store, 1, 2, 500)
        pid = pids(store)[0]
        kill(pid, signal.SIGSTOP)
        over = threading.Event()

        def fill() -> None:
            with ends_within(60.0), pytest.raises((OutcomeUnknownError, ShardAwayError)):
                while not over.is_set():
                    store.put_many(*rows(frozen))

        with ThreadPoolExecutor(3) as pool:
            fillers = [pool.submit(fill) for _thread in range(3)]
            try:
                # All the while the other one answers.
                while pid in pids(store):
                    store.put_many(*rows(alive))
                    assert_holds(store, alive)
            finally:
                until(lambda: all(each.done() for each in fillers), "nobody waits any more")
                over.set()
            for each in fillers:
                each.result()
        until(lambda: all_serve(store), "it is replaced")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        store.flush()
        assert_holds(store, alive)


def test_a_lookup_that_meets_an_unfinished_change_ends(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, worker=QUICK, **SMALL) as store:
        store.put_many(*rows(range(3000)))
        store.flush()
        over = threading.Event()

        def write() -> None:
            while not over.is_set():
                try:
                    store.put_many(*rows(range(3000)))
                except (OutcomeUnknownError, ShardAwayError):
                    continue

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            try:
                for _freeze in range(3):
                    until(lambda: all_serve(store), "it serves")
                    # It has answered something, or the third freeze in a row would stop it.
                    len(store)
                    # Somewhere in a change, as often as not; lookups then wait, and no longer than the deadline.
                    pid = pids(store)[0]
                    kill(pid, signal.SIGSTOP)
                    while is_running(pid):
                        with ends_within(1.0):
                            try:
                                assert_holds(store, range(3000))
                            except ShardAwayError:
                                break
                    until(lambda pid=pid: pid not in pids(store), "the writer's deadline ends it")
            finally:
                over.set()
            writer.result()

        def answers() -> bool:
            try:
                assert_holds(store, range(3000))
            except ShardAwayError:
                return False  # the last freeze may still be being noticed
            return True

        until(answers, "it answers")
        settle(store)


def test_a_worker_that_freezes_in_the_middle_of_an_answer_costs_no_more_than_the_deadline(
    tmp_path: Path,
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, worker=QUICK, **SMALL) as store:
        store.put_many(*rows(range(100)))
        store.flush()
        process = store._core.shards._keepers[0].process
        assert process is not None
        kill(process.pid, signal.SIGSTOP)
        # The beginning of a frame that never goes on, as it wrote it.
        pipe = os.open(f"/proc/self/fd/{process._answering.reading}", os.O_WRONLY)
        os.write(pipe, b"\0\0\1\0half")
        with ends_within(1.0), pytest.raises(OutcomeUnknownError):
            len(store)
        os.close(pipe)
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is replaced")
        assert_holds(store, range(100))


# ---- opening and closing


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_close_while_a_worker_is_stopped_or_away_ends(tmp_path: Path, number: signal.Signals) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=2, worker=QUICK, **SMALL)
    store.put_many(*rows(range(100)))
    store.flush()
    kill(pids(store)[0], number)
    with ends_within(3.0):
        try:
            store.close()
        except SiltstoneError:
            # Whether it is replaced before is a matter of time.
            assert number in (signal.SIGSTOP, signal.SIGKILL)
    assert workers_of(os.getpid()) == []
    with siltstone.open(tmp_path / "store.silt", workers=2) as again:
        assert_holds(again, range(100))


def test_a_close_ends_while_a_worker_that_is_started_again_is_frozen(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=1, worker=QUICK, **SMALL)
    store.put_many(*rows(range(100)))
    store.flush()
    keeper = store._core.shards._keepers[0]
    configuration = keeper.place.configuration
    frozen = []

    def freeze() -> object:
        frozen.append(pids(store)[0])
        kill(frozen[-1], signal.SIGSTOP)
        return configuration()

    keeper.place.configuration = freeze
    kill(pids(store)[0])
    until(lambda: frozen, "another is started")
    with ends_within(3.0), pytest.raises((ShardAwayError, OutcomeUnknownError)):
        store.close()
    assert workers_of(os.getpid()) == []
    siltstone.open(tmp_path / "store.silt", workers=1).close()


def test_a_worker_that_freezes_at_the_opening_costs_the_opening_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siltstone_workers.keeper import Keeper

    greeted = Keeper._greeted

    def freeze(keeper: Keeper, message: object) -> None:
        greeted(keeper, message)
        assert keeper.process is not None
        if keeper.number == 1:
            kill(keeper.process.pid, signal.SIGSTOP)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_greeted", freeze)
        with ends_within(2.0), pytest.raises(SiltstoneError):
            siltstone.open(tmp_path / "store.silt", workers=2, worker=QUICK, **SMALL)
    assert workers_of(os.getpid()) == []
    siltstone.open(tmp_path / "store.silt", workers=2).close()


# ---- the core is gone

CORE = """
import os, sys, siltstone
from siltstone import HashInfo
store = siltstone.open(sys.argv[1], workers=2, erase_block=65536)
store.put(HashInfo(bytes(32), 1, 2))
store.flush()
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        # It has everything that its parent had open, and lives on.
        sys.stdin.read()
        os._exit(0)
    print(child, flush=True)
print(*(worker.pid for worker in store.workers()), flush=True)
if sys.argv[3] == "close":
    store.close()
elif sys.argv[3] == "leave":
    sys.exit()
elif sys.argv[3] == "wait":
    sys.stdin.read()
"""


@pytest.fixture
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with child(CORE, tmp_path / "store.silt", *request.param) as process:
        yield process


def gone(workers: list[int]) -> None:
    """The kernel ends them with their core; it is their memory that takes time to give back."""
    until(lambda: not any(map(is_running, workers)), "the workers of a dead core are gone")


@pytest.mark.parametrize("core", [("alone", "wait")], indirect=True)
@pytest.mark.parametrize("stopped", [False, True])
def test_no_worker_outlives_a_core_that_is_killed(
    core: subprocess.Popen[str], tmp_path: Path, stopped: bool
) -> None:
    workers = [int(word) for word in core.stdout.readline().split()]
    assert sorted(workers) == sorted(workers_of(core.pid))
    for count in (0, 2):
        with pytest.raises(LockedError) as caught:
            siltstone.open(tmp_path / "store.silt", workers=count)
        assert str(core.pid) in caught.value.holder
    assert not workers_of(os.getpid())
    if stopped:
        kill(workers[0], signal.SIGSTOP)
    core.kill()
    core.wait()
    gone(workers)
    with siltstone.open(tmp_path / "store.silt", workers=2) as store:
        assert store.get(bytes(32)) is not None


@pytest.mark.parametrize(
    "core", [("fork", "close"), ("fork", "leave"), ("fork", "wait")], indirect=True, ids="-".join
)
def test_a_forked_child_keeps_neither_workers_nor_the_volume(
    core: subprocess.Popen[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    child = int(core.stdout.readline())
    workers = [int(word) for word in core.stdout.readline().split()]
    ends = request.node.callspec.params["core"][1]
    try:
        if ends == "wait":
            core.kill()
        core.wait()
        gone(workers)
        assert is_running(child)
        if ends == "wait":
            # Its file descriptors hold the lock, which nobody was there to give up; it ends with the child.
            with pytest.raises(LockedError):
                siltstone.open(tmp_path / "store.silt", workers=2)
        else:
            with siltstone.open(tmp_path / "store.silt", workers=2) as store:
                assert store.get(bytes(32)) is not None
    finally:
        kill(child)
    until(lambda: not is_running(child), "the child is gone")
    siltstone.open(tmp_path / "store.silt", workers=2).close()
