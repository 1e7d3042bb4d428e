"""Children that were forked from the process that has a store open: they leave it alone."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import siltstone
from siltstone import HashInfo
from siltstone.errors import ClosedError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from siltstone.shard.group_commit import GroupCommit


def info(number: int) -> HashInfo:
    return HashInfo(number.to_bytes(32, "big"), number, number)


def in_child(action: Callable[[], None]) -> int:
    """Run `action` in a forked child; 0 where it ended well."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - the child must not go on with the tests
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except (StateError, ClosedError) as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError(f"{call} was not refused")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_child_is_refused_a_flush_that_a_thread_of_its_parent_runs(path: Path, workers: int) -> None:
    """What that thread holds in the child nobody will ever give up."""
    with siltstone.open(path, workers=workers) as store:
        store.put(info(1))
        shards: Any = store._core.shards  # type: ignore[union-attr]
        commits: GroupCommit = shards._commits if workers else shards.group._commits
        usual, runs, goes_on = commits.flush, threading.Event(), threading.Event()

        def held() -> None:
            runs.set()
            assert goes_on.wait(timeout=60)
            usual()

        commits.flush = held
        thread = threading.Thread(target=store.flush)
        thread.start()
        assert runs.wait(timeout=60)

        def flush() -> None:
            signal.alarm(20)
            refused(store.flush)

        try:
            assert in_child(flush) == 0
        finally:
            goes_on.set()
            thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_child_can_neither_put_nor_flush_nor_close(path: Path) -> None:
    store = siltstone.open(path, shards=2)
    for number in range(100):
        store.put(info(number))
    store.flush()

    def use() -> None:
        refused(lambda: store.put(info(1000)))
        refused(lambda: store.delete(info(1).hash))
        refused(store.flush)
        refused(lambda: store.put_many([info(7).hash], [1], [1]))
        store.close()

    assert in_child(use) == 0
    for number in range(100, 200):
        store.put(info(number))
    store.flush()
    store._core.abandon()
    with siltstone.open(path) as again:
        assert len(again) == 200
        assert again.get(info(1000).hash) is None
        assert not again.info().clean


def test_a_child_that_lives_on_does_not_keep_the_store_locked(path: Path) -> None:
    store = siltstone.open(path, shards=2)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    store.close()
    siltstone.open(path).close()
    os.close(write_end)
    os.waitpid(child, 0)
