"""Workers and cores that are stopped, hang, or outlive each other: nobody waits for ever, nobody writes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from store_records import assert_holds, digest, info, rows
from worker_stores import all_serve, is_running, kill, leave_in_a_change, pids, until, workers_of

import siltstone
from siltstone import WorkerOptions
from siltstone.errors import LockedError, OutcomeUnknownError, SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = {"erase_block": 64 * 1024}
SOON = WorkerOptions(deadline=1.0)
CORE = """
import sys, siltstone
from store_records import rows
store = siltstone.open(sys.argv[1], workers=2, erase_block=64 * 1024)
store.put_many(*rows(range(3000)))
store.flush()
print(*(worker.pid for worker in store.workers()), flush=True)
sys.stdin.read()
"""


@contextmanager
def core(path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that has a store open, with 3000 records flushed; and its workers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", CORE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


# ---- stopped workers


def test_a_stopped_worker_is_replaced_and_what_was_flushed_is_there(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, worker=SOON, **SMALL) as store:
        store.put_many(*rows(range(2000)))
        store.flush()
        pid = pids(store)[0]
        kill(pid, signal.SIGSTOP)
        store.put(info(5000))
        # Also what the worker has not got is found, and nothing waits for it.
        assert store.get(digest(5000)) == info(5000)
        assert_holds(store, range(2000))
        with pytest.raises(OutcomeUnknownError) as caught:
            store.flush()
        assert "FLUSH within 1 s" in str(caught.value)
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "another one serves")
        assert not is_running(pid)
        assert_holds(store, range(2000))
        # What was lost with it has been told by the flush that found it out.
        store.flush()
        store.put(info(5000))
        store.flush()
        assert store.get(digest(5000)) == info(5000)
    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        assert_holds(store, [*range(2000), 5000])


def test_puts_to_a_stopped_worker_end_when_its_pipe_is_full(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=1, shards=1, worker=SOON, erase_block=1 << 20)
    try:
        kill(pids(store)[0], signal.SIGSTOP)
        with pytest.raises(OutcomeUnknownError):
            for start in range(0, 1_000_000, 1000):
                store.put_many(*rows(range(start, start + 1000)))
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "another one serves")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
    finally:
        store.close()


def test_closing_over_a_stopped_worker_ends(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=2, worker=SOON, **SMALL)
    store.put_many(*rows(range(1000)))
    store.flush()
    processes = pids(store)
    kill(processes[0], signal.SIGSTOP)
    with pytest.raises(OutcomeUnknownError):
        store.close()
    assert not any(is_running(pid) for pid in processes)
    with siltstone.open(tmp_path / "store.silt", workers=2) as again:
        assert_holds(again, range(1000))


def test_a_reader_that_meets_an_endless_change_ends(tmp_path: Path) -> None:
    """As if the worker had been stopped while it moved slots."""
    with siltstone.open(tmp_path / "store.silt", workers=1, shards=1, worker=SOON, **SMALL) as store:
        store.put_many(*rows(range(100)))
        store.flush()
        pid = pids(store)[0]
        kill(pid, signal.SIGSTOP)
        leave_in_a_change(store)
        with pytest.raises(SiltstoneError):
            for number in range(1000, 2000):
                store.get(digest(number))
        until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "another one serves")
        assert not is_running(pid)
        assert_holds(store, range(100))


# ---- cores that end


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_end_with_a_core_that_is_killed(tmp_path: Path, stopped: bool) -> None:
    path = tmp_path / "store.silt"
    with core(path) as (process, workers):
        if stopped:
            kill(workers[0], signal.SIGSTOP)
        process.kill()
        process.wait()
        began = time.monotonic()
        until(lambda: not any(is_running(pid) for pid in workers), "its workers are gone")
        assert time.monotonic() - began < 1.0
    with siltstone.open(path, workers=1) as store:
        assert_holds(store, range(3000))


def test_a_volume_is_open_to_the_next_as_soon_as_its_core_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    for _life in range(5):
        with core(path) as (process, _workers):
            process.kill()
            process.wait()
            # Without a pause: the workers may still be ending, and are waited for.
            with siltstone.open(path, workers=0) as store:
                assert_holds(store, range(3000))


def test_a_second_core_is_refused_and_the_first_named(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with core(path) as (process, _workers):
        for workers in (0, 2):
            with pytest.raises(LockedError) as caught:
                siltstone.open(path, workers=workers)
            assert str(process.pid) in caught.value.holder
        assert not workers_of(os.getpid())


def test_a_core_that_ends_without_closing_takes_its_workers_along(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with core(path) as (process, workers):
        process.stdin.close()
        process.wait()
        until(lambda: not any(is_running(pid) for pid in workers), "its workers are gone")
    with siltstone.open(path, workers=2) as store:
        assert_holds(store, range(3000))


def test_a_child_of_the_caller_keeps_neither_workers_nor_lock(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    store = siltstone.open(path, workers=2, **SMALL)
    store.put_many(*rows(range(100)))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent lets go
        os._exit(0)
    os.close(reading)
    try:
        processes = pids(store)
        store.close()
        assert not any(is_running(pid) for pid in processes)
        with siltstone.open(path, workers=0) as again:
            assert_holds(again, range(100))
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_calls_that_are_under_way_end_when_the_store_is_closed(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=2, **SMALL)
    ended: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(10**6):
                store.put(info(number + step))
                if step % 10 == 0:
                    store.flush()
                store.get(digest(number))
        except SiltstoneError as error:
            ended.append(error)

    threads = [threading.Thread(target=work, args=(number * 10**6,)) for number in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(store) > 100, "they work")
    store.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [type(error).__name__ for error in ended] == ["ClosedError"] * 4
