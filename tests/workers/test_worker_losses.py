"""A put that returned and is then lost is always told of: between any two steps of the burial of its worker."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest
from store_records import digest, info
from worker_stores import SMALL, all_serve, kill, pids, until

import siltstone
from siltstone.errors import OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from siltstone.errors import SiltstoneError
    from siltstone_workers.process import WorkerProcess


def test_a_flush_while_a_worker_is_buried_tells_of_the_loss(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store, ThreadPoolExecutor(1) as pool:
        publisher = store._core.shards.publisher
        bar, flushes = publisher.bar, list[Future[None]]()

        def flush_first(process: WorkerProcess) -> None:
            flushes.append(pool.submit(store.flush))
            publisher.bar = bar
            # It waits for the burial, or is wrong and quick: nothing here depends on the time.
            wait(flushes, timeout=0.3)
            bar(process)

        publisher.bar = flush_first
        store.put(info(1))
        kill(pids(store)[0])
        until(lambda: store.losses and all_serve(store), "it is back")
        with pytest.raises(OutcomeUnknownError):
            flushes[0].result()
        # This thread has put it, and was not told yet.
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        store.flush()


def test_a_put_that_comes_too_late_for_its_worker_is_refused(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        keeper = store._core.shards._keepers[0]
        pid, dead = pids(store)[0], keeper.process
        assert dead is not None
        # Nothing more is heard of it: later puts wait for company.
        kill(pid, signal.SIGSTOP)
        store.put(info(1))
        kill(pid)
        until(lambda: store.losses and all_serve(store), "it is back")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        # As a thread that chose its process before the death, and goes on after it.
        serving, keeper.serving = keeper.serving, lambda shard: dead
        try:
            with pytest.raises(OutcomeUnknownError):
                store.put(info(2))
        finally:
            keeper.serving = serving
        store.flush()
        assert store.get(digest(2)) is None
        store.put(info(2))
        store.flush()
        assert store.get(digest(2)) == info(2)


def test_what_one_thread_is_told_late_takes_back_nothing_that_another_was_told(tmp_path: Path) -> None:
    """Whoever comes new would be told of it once more."""

    class Losing:
        """Loses more while it is asked, of which another thread is told before this one goes on."""

        def __init__(self, meanwhile: Callable[[], object], losses: int) -> None:
            self._meanwhile, self._losses = meanwhile, losses

        @property
        def losses(self) -> int:
            self._meanwhile()
            return self._losses

        def loss(self) -> SiltstoneError:
            return OutcomeUnknownError("lost")

    with siltstone.open(tmp_path / "store.silt", workers=0) as store:
        second: Any = Losing(lambda: None, 2)
        first: Any = Losing(lambda: store._loss_since(second, 0), 1)
        assert store._loss_since(first, 0) is not None
        assert store.losses_told == 2
