"""Lookups, openings and calls that could wait for what never comes: a change, a lock, an answer."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from real_media import child
from store_records import assert_holds, digest, info, rows
from worker_stores import SMALL, all_serve, is_running, kill, leave_in_a_change, pids, until

import siltstone
from siltstone import WorkerOptions
from siltstone.errors import SiltstoneError

if TYPE_CHECKING:
    from pathlib import Path

SOON = WorkerOptions(deadline=1.0)
CORE = """
import sys, siltstone
from store_records import rows
store = siltstone.open(sys.argv[1], workers=2, erase_block=64 * 1024)
store.put_many(*rows(range(3000)))
store.flush()
print("flushed", flush=True)
sys.stdin.read()
"""


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


def test_a_volume_is_open_to_the_next_as_soon_as_its_core_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    for _life in range(5):
        with child(CORE, path) as process:
            assert process.stdout.readline() == "flushed\n"
            process.kill()
            process.wait()
            # Without a pause: the workers may still be ending, and are waited for.
            with siltstone.open(path, workers=0) as store:
                assert_holds(store, range(3000))


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
