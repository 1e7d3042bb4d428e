"""Threads that flush at the same time share a flush that began after each of them asked, whatever becomes of others."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from store_records import assert_holds, info

import siltstone
from siltstone.errors import MediumError
from siltstone.shard.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Gate:
    """A flush that waits until it is let through, and may fail."""

    def __init__(self, look_seconds: float) -> None:
        self.begun = 0
        self.begins = threading.Semaphore(0)
        self.passes = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.commits = GroupCommit(self.flush, look_seconds)

    def flush(self) -> None:
        self.begun += 1
        self.begins.release()
        assert self.passes.acquire(timeout=60)
        if self.errors:
            raise self.errors.pop(0)

    def ask(self, outcomes: list[BaseException | None]) -> threading.Thread:
        def run() -> None:
            try:
                self.commits.ask()
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                outcomes.append(error)
            else:
                outcomes.append(None)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def begin_one(self, outcomes: list[BaseException | None]) -> threading.Thread:
        """A thread whose flush waits at the gate."""
        thread = self.ask(outcomes)
        assert self.begins.acquire(timeout=60)
        return thread

    def ask_behind(self, count: int, outcomes: list[BaseException | None]) -> list[threading.Thread]:
        """So many threads that sleep behind the flush under way."""
        threads = [self.ask(outcomes) for _ in range(count)]
        until(lambda: len(self.commits.asleep) == count)
        return threads


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    # Nobody is found to wait by looking, in the time of a test that does not say so.
    gate = Gate(getattr(request, "param", 1000.0))
    yield gate
    for _ in range(1000):
        gate.passes.release()


def test_all_who_ask_during_a_flush_are_served_by_the_next(gate: Gate) -> None:
    first: list[BaseException | None] = []
    others: list[BaseException | None] = []
    threads = [gate.begin_one(first), *gate.ask_behind(20, others)]
    gate.passes.release()
    # The one under way is no use to them: what they put may have come too late for it.
    assert gate.begins.acquire(timeout=60)
    until(lambda: first == [None])
    assert others == []
    gate.passes.release()
    join(threads)
    assert others == [None] * 20
    assert gate.begun == 2


def test_what_a_flush_raises_is_told_to_all_whom_it_was_for(gate: Gate) -> None:
    first: list[BaseException | None] = []
    others: list[BaseException | None] = []
    threads = [gate.begin_one(first), *gate.ask_behind(3, others)]
    error = MediumError("broken", url="x", operation="flush", offset=0, length=0, errno=5)
    gate.errors = [error, error]
    for _ in range(2):
        gate.passes.release()
    join(threads)
    assert first == [error]
    assert [repr(each) for each in others] == [repr(error)] * 3
    # One each: whoever raises it makes its traceback longer.
    assert len({id(each) for each in others}) == 3
    assert gate.begun == 2
    gate.passes.release()
    gate.commits.ask()


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
def test_what_is_no_answer_for_others_lets_them_flush_themselves(gate: Gate, error: BaseException) -> None:
    outcomes: list[BaseException | None] = []
    threads = [gate.begin_one(outcomes), *gate.ask_behind(3, outcomes)]
    gate.errors = [error, error]
    for _ in range(4):
        gate.passes.release()
    join(threads)
    # Of the first, of the next, which was to be for all three, and of one for the two that are left.
    assert outcomes.count(error) == 2
    assert outcomes.count(None) == 2


def test_each_who_asks_again_and_again_gets_its_answer_while_flushes_fail() -> None:
    def flush() -> None:
        time.sleep(0.0005)
        raise MediumError("broken", url="x", operation="flush", offset=0, length=0, errno=5)

    commits, answers = GroupCommit(flush), [0] * 17
    end = time.monotonic() + 60

    def work(number: int) -> None:
        while min(answers) < 3 and time.monotonic() < end:
            with pytest.raises(MediumError):
                commits.ask()
            answers[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(17)]
    for thread in threads:
        thread.start()
    join(threads)
    assert min(answers) >= 3


@pytest.mark.parametrize("leads", [True, False])
def test_an_interrupt_ends_the_waiting_of_one_thread_alone(gate: Gate, leads: bool) -> None:
    """Only the main thread is interrupted: it leads, or sleeps in front of all others."""
    outcomes: list[BaseException | None] = []
    threads: list[threading.Thread] = []

    def behind() -> None:
        # Behind the main thread, which asks below.
        if leads:
            assert gate.begins.acquire(timeout=60)
        else:
            until(lambda: len(gate.commits.asleep) == 1)
        expected = 5 if leads else 6
        threads.extend(gate.ask(outcomes) for _ in range(5))
        until(lambda: len(gate.commits.asleep) == expected)
        # Again: one that comes just before it sleeps is looked at when the sleep is over.
        while not came:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.01)

    def once(*_arguments: object) -> None:
        if not came:
            came.append(True)
            raise KeyboardInterrupt

    came: list[bool] = []
    before = signal.signal(signal.SIGINT, once)
    if not leads:
        threads.append(gate.begin_one(outcomes))
    helper = threading.Thread(target=behind)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            gate.commits.ask()
        join([helper])
    finally:
        signal.signal(signal.SIGINT, before)
    for _ in range(10):
        gate.passes.release()
    join(threads)
    assert outcomes == [None] * len(threads)


@pytest.mark.parametrize("load", [0, 4])
@pytest.mark.parametrize("gate", [0.01], indirect=True)
def test_a_thread_that_nobody_wakes_looks_for_itself(gate: Gate, load: int) -> None:
    outcomes: list[BaseException | None] = []
    threads = [gate.begin_one(outcomes), *gate.ask_behind(5, outcomes)]
    # As where an interrupt comes between two steps of whoever leads.
    gate.commits.asleep.clear()
    gate.commits.flush = lambda: time.sleep(0.001)
    end = time.monotonic() + 30

    def ask_on() -> None:
        # So that somebody leads nearly always.
        while len(outcomes) < 6 and time.monotonic() < end:
            gate.commits.ask()

    others = [threading.Thread(target=ask_on) for _ in range(load)]
    for other in others:
        other.start()
    gate.passes.release()
    join(others)
    join(threads)
    assert outcomes == [None] * 6
    assert time.monotonic() < end


def test_one_who_sleeps_and_is_woken_by_another_is_not_waited_for(gate: Gate) -> None:
    """Between a look how many sleep and the taking of one a thread that has just led may wake it."""

    class Shorter(deque[Any]):
        def __len__(self) -> int:
            return super().__len__() + 1

    gate.commits.asleep = Shorter()
    gate.passes.release()
    gate.commits.ask()
    assert gate.commits.ended == 1


@pytest.mark.parametrize("seed", range(4))
def test_what_was_put_before_a_flush_is_covered_when_it_returns(seed: int, full_battery: bool) -> None:
    rounds = 3000 if full_battery else 200
    put = covered = failures = 0
    lock = threading.Lock()
    chance = random.Random(seed)

    def flush() -> None:
        nonlocal covered
        reaches = put
        if chance.random() < 0.5:
            time.sleep(chance.random() / 10_000)
        if chance.random() < 0.1:
            raise OSError("failed")
        covered = max(covered, reaches)

    commits = GroupCommit(flush)
    wrong: list[int] = []

    def work() -> None:
        nonlocal put, failures
        for _ in range(rounds):
            with lock:
                put += 1
                mine = put
            try:
                commits.ask()
            except OSError:
                with lock:
                    failures += 1
            else:
                if covered < mine:
                    wrong.append(mine)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    join(threads)
    assert not wrong
    assert failures
    # Nobody is left behind, asleep or leading.
    assert not commits.leading.locked()
    assert not commits.asleep


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_threads_that_flush_a_store_share_its_flushes(tmp_path: Path, workers: int) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=workers)
    try:
        shards: Any = store._core.shards
        commits: GroupCommit = shards._commits if workers else shards.group._commits
        usual, holds, begun = commits.flush, threading.Event(), 0

        def held() -> None:
            nonlocal begun
            begun += 1
            assert holds.wait(timeout=60)
            usual()

        commits.flush = held

        def work(number: int) -> None:
            store.put(info(number))
            store.flush()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
        threads[0].start()
        until(lambda: begun == 1)
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(commits.asleep) == 29)
        holds.set()
        join(threads)
        assert begun == 2
    finally:
        store._core.abandon()
    with siltstone.open(tmp_path / "store.silt") as store:
        assert_holds(store, range(30))
