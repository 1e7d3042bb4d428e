"""Attempts at a lock, and calls that no interrupt cuts off."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from interrupts import Anywhere
from store_records import assert_holds, digest, info

import siltstone
from siltstone.locks import Attempt, uninterrupted

if TYPE_CHECKING:
    from pathlib import Path


def test_a_free_lock_is_held_for_the_block_and_free_behind_it() -> None:
    lock = threading.Lock()
    with Attempt(lock) as is_free:
        assert is_free
        assert lock.locked()
    assert not lock.locked()


def test_a_lock_that_somebody_has_stays_theirs() -> None:
    lock = threading.Lock()
    with lock:
        with Attempt(lock) as is_free:
            assert not is_free
        assert lock.locked()


def test_an_error_in_the_block_gives_the_lock_up() -> None:
    lock = threading.Lock()
    with pytest.raises(KeyboardInterrupt), Attempt(lock):
        raise KeyboardInterrupt
    assert not lock.locked()


def test_an_interrupt_anywhere_in_a_try_to_put_leaves_no_lock_of_a_shard_held(tmp_path: Path) -> None:
    for place in itertools.count(1):
        path = tmp_path / "store.silt"
        path.unlink(missing_ok=True)
        with siltstone.open(path, workers=0, shards=1) as store:
            (shard,) = store._core.shards.group.shards.values()
            was_interrupted = Anywhere(place).while_(lambda store=store: store.try_put(info(1)))
            assert not shard.lock.locked(), place
            if not was_interrupted:
                assert_holds(store, [1])
                break
            store._core.abandon()
            store._core = None
    assert place > 30


# ---- calls that come to their end


def test_what_is_not_interrupted_returns_and_raises_as_it_would() -> None:
    assert uninterrupted(lambda: 7) == 7
    with pytest.raises(ValueError, match="told"):
        uninterrupted(lambda: int("told"))
    assert threading.current_thread() is threading.main_thread()
    threads = []
    other = threading.Thread(target=lambda: threads.append(uninterrupted(threading.current_thread)))
    other.start()
    other.join()
    # No signal is handled there: it stays where it is.
    assert threads == [other]


def test_an_interrupt_anywhere_is_raised_when_the_call_is_over_or_before_it_begins() -> None:
    outcomes = set()
    for place in itertools.count(1):
        steps: list[str] = []

        def call(steps: list[str] = steps) -> None:
            steps.append("begun")
            for _again in range(3):
                threading.Event().wait(0.001)
            steps.append("ended")

        was_interrupted = Anywhere(place).while_(lambda call=call: uninterrupted(call))
        assert steps in ([], ["begun", "ended"]), place
        outcomes.add((was_interrupted, len(steps)))
        if not was_interrupted:
            break
    # Whether one comes when the other thread has begun is the system's: the next test makes sure of that.
    assert {(True, 0), (False, 2)} <= outcomes


def test_signals_while_a_call_runs_are_raised_when_it_is_over() -> None:
    steps = []

    def call() -> None:
        for number in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
            steps.append(number)
            threading.Event().wait(0.001)

    def handle(*_what: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            uninterrupted(call)
        assert len(steps) == 20
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_where_there_are_no_threads_to_be_had_it_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_what: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert uninterrupted(threading.current_thread) is threading.main_thread()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_anywhere_in_a_close_leaves_nothing_open(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "store.silt"
    for place in itertools.count(1):
        store = siltstone.open(path, workers=workers)
        store.put(info(place))
        was_interrupted = Anywhere(place).while_(store.close)
        # Closing twice is allowed, and does what the first did not.
        store.close()
        with siltstone.open(path, workers=0) as reopened:
            assert reopened.get(digest(place)) == info(place)
        if not was_interrupted:
            break
    assert place > 3


def test_an_interrupt_anywhere_while_the_superblock_is_written_poisons_nothing(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1) as store:
        volume = store._core.volume
        for place in itertools.count(1):
            before = volume.superblock.sequence
            was_interrupted = Anywhere(place).while_(lambda: volume.publish(lambda superblock: superblock))
            assert volume.poisoned is None
            # It was written as a whole, or nothing was.
            assert volume.superblock.sequence - before in (0, 1)
            store.put(info(place))
            store.flush()
            if not was_interrupted:
                break
    assert place > 10
