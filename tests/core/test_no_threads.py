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


def test_many_at_once_are_not_done_without_threads(allow: Callable[[int], None]) -> None:
    allow(0)
    with pytest.raises(StateError, match="could not be started"):
        map_in_threads(abs, range(-100, 0), 8)
    allow(8)
    assert map_in_threads(abs, range(-100, 0), 8) == list(range(100, 0, -1))


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    done = []

    def act(number: int) -> None:
        if number == 1:
            raise KeyError(number)
        done.append(number)

    with pytest.raises(KeyError):
        map_in_threads(act, range(4), 2)
    assert sorted(done) == [0, 2, 3]


def test_tasks_share_the_threads_that_there_are(tmp_path: Path, allow: Callable[[int], None]) -> None:
    async def main() -> None:
        store = await siltstone.aio.open(tmp_path / "store.silt", workers=0)
        allow(1)
        # Too many rows for the loop: each goes to a thread, of which there is one.
        await asyncio.gather(
            *(store.put_many(*rows(range(start, start + 1000))) for start in range(0, 8000, 1000))
        )
        assert await store.count() == 8000
        # Flushes and the close have the thread that opened it; the checkpoints of the close are left out.
        allow(0)
        await asyncio.wait_for(store.flush(), 60)
        await asyncio.wait_for(store.close(), 60)

    asyncio.run(main())
    allow(10)
    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        assert_holds(store, range(8000))
