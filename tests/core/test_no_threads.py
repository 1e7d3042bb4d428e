"""Where the system allows no more threads that is said, and nothing is left behind; what can do without one does."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from store_records import assert_holds, rows

import siltstone
import siltstone.aio
from siltstone.errors import SiltstoneError, StateError
from siltstone.threads import map_in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Allow so many more threads, and none after that."""
    usual = threading.Thread.start
    left = 1 << 30

    def start(self: threading.Thread) -> None:
        nonlocal left
        if left <= 0:
            # As the interpreter has it.
            raise RuntimeError("can't start new thread")
        left -= 1
        usual(self)

    def allow(count: int) -> None:
        nonlocal left
        left = count

    monkeypatch.setattr(threading.Thread, "start", start)
    yield allow
    left = 1 << 30


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_opens_with_fewer_threads_or_says_that_it_cannot(
    tmp_path: Path, workers: int, allow: Callable[[int], None]
) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0, shards=2) as store:
        store.put_many(*rows(range(100)))
    opened = False
    for count in range(10):
        allow(count)
        try:
            with siltstone.open(path, workers=workers) as store:
                opened = True
                assert_holds(store, range(100))
        except SiltstoneError as error:
            assert not opened, error
            assert isinstance(error, StateError), error
            assert "thread" in str(error)
    assert opened


@pytest.mark.parametrize("more", [0, 1, 8])
def test_many_at_once_are_done_by_as_many_threads_as_there_are(
    allow: Callable[[int], None], more: int
) -> None:
    allow(more)
    together = threading.Barrier(more + 1)

    def act(number: int) -> tuple[int, int]:
        if number <= more:
            together.wait(60)
        return -number, threading.get_ident()

    found = map_in_threads(act, range(100), 9)
    assert [number for number, _thread in found] == list(range(0, -100, -1))
    assert len({thread for _number, thread in found}) == more + 1


def test_an_opening_that_replays_goes_on_without_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.silt"
    store = siltstone.open(path, workers=0, shards=4)
    store.put_many(*rows(range(100_000)))
    store.flush()
    store._core.abandon()
    usual, refused = threading.Thread.start, []
    monkeypatch.setattr("os.cpu_count", lambda: 4)

    def start(self: threading.Thread) -> None:
        if self.name == "siltstone-housekeeper":
            return usual(self)
        refused.append(self.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with siltstone.open(path, workers=0) as store:
        assert_holds(store, range(100_000))
    # Neither for the replay nor for the checkpoints of the close.
    assert len(refused) > 1
    monkeypatch.undo()
    with siltstone.open(path, workers=0) as store:
        assert_holds(store, range(100_000))


@pytest.mark.parametrize("left", ["nothing", "little", "much"])
def test_an_opening_starts_threads_for_a_replay_that_is_worth_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    path = tmp_path / "store.silt"
    store = siltstone.open(path, workers=0, shards=2)
    store.put_many(*rows(range(1000)))
    store.incarnate()
    store.put_many(*rows(range(1000, {"nothing": 1000, "little": 2000, "much": 100_000}[left])))
    store.close()
    # A checkpoint would leave nothing to be replayed.
    monkeypatch.setattr("siltstone.shard.opening.find_checkpoint", lambda *_arguments: None)
    usual, started = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        started.append(self.name)
        usual(self)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", start)
    with siltstone.open(path, workers=0) as store:
        assert ("siltstone-pool" in started) is (left == "much")
        assert_holds(store, range(2000 if left == "little" else 1000))


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    done = []

    def act(number: int) -> None:
        if number == 1:
            raise KeyError(number)
        done.append(number)

    with pytest.raises(KeyError):
        map_in_threads(act, range(4), 2)
    assert sorted(done) == [0, 2, 3]


def test_an_interrupt_is_not_kept_waiting_for_what_has_not_begun() -> None:
    done = []

    def act(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        done.append(number)

    with pytest.raises(KeyboardInterrupt):
        map_in_threads(act, range(100), 1)
    assert done == []
    with pytest.raises(KeyboardInterrupt):
        map_in_threads(act, range(10_000), 2)
    assert len(done) < 10_000


def test_tasks_share_the_threads_that_there_are(tmp_path: Path, allow: Callable[[int], None]) -> None:
    async def main() -> None:
        store = await siltstone.aio.open(tmp_path / "store.silt", workers=0)
        allow(1)
        # Too many rows for the loop: each goes to a thread, of which there is one.
        await asyncio.gather(
            *(store.put_many(*rows(range(start, start + 1000))) for start in range(0, 8000, 1000))
        )
        assert await store.count() == 8000
        # Flushes and the close have the thread that opened it.
        allow(0)
        await asyncio.wait_for(store.flush(), 60)
        await asyncio.wait_for(store.close(), 60)

    asyncio.run(main())
    allow(10)
    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        assert_holds(store, range(8000))
