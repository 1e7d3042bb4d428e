"""Whatever happens to workers, nothing of them is left: no process, descriptor, memory or thread."""

from __future__ import annotations

import errno
import gc
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from store_records import assert_holds, info
from worker_stores import SMALL, all_serve, kill, pids, shared_memory, until, workers_of

import siltstone
from siltstone.errors import OutcomeUnknownError, SiltstoneError
from siltstone_workers.keeper import Keeper
from siltstone_workers.place import WorkerPlace

if TYPE_CHECKING:
    from pathlib import Path


def belongings() -> tuple[int, int, int, int]:
    """How many descriptors, pieces of shared memory, threads of any kind and workers this process has."""
    gc.collect()
    return (
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        len(shared_memory()),
        threading.active_count(),
        len(workers_of(os.getpid())),
    )


def test_opening_again_and_again_leaves_nothing(tmp_path: Path, full_battery: bool) -> None:
    path = tmp_path / "store.silt"
    siltstone.open(path, workers=2, **SMALL).close()
    before = belongings()
    for number in range(50 if full_battery else 8):
        with siltstone.open(path, workers=2) as store:
            store.put(info(number))
            store.flush()
            with pytest.raises(SiltstoneError):
                siltstone.open(path, workers=2)
        assert belongings() == before, number


def test_workers_that_die_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    before = belongings()
    with siltstone.open(path, workers=2, **SMALL) as store:
        serving = belongings()
        for death in range(4):
            store.put(info(death))
            store.flush()
            pid = pids(store)[0]
            kill(pid)
            until(lambda pid=pid: pid not in pids(store) and all_serve(store), "it is replaced")
            # Its memory goes with the reader that could still look into it.
            until(lambda: belongings() == serving, f"{serving} after death {death}")
            len(store)
    assert belongings() == before


def test_a_store_that_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    before = belongings()
    store = siltstone.open(tmp_path / "store.silt", workers=2, **SMALL)
    store.put(info(1))
    store._core.abandon()
    del store
    assert belongings() == before


@pytest.mark.parametrize(
    "step",
    [
        (WorkerPlace, "prepare"),
        (WorkerPlace, "configuration"),
        (WorkerPlace, "views"),
        (Keeper, "_greeted"),
        (Keeper, "start"),
    ],
    ids=lambda step: step[1],
)
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    "error", [SiltstoneError("it fails"), OSError(errno.EMFILE, "no more"), MemoryError()]
)
def test_an_opening_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], nth: int, error: Exception
) -> None:
    path = tmp_path / "store.silt"
    siltstone.open(path, workers=0, **SMALL).close()
    before = belongings()
    owner, name = step
    real, calls, lock = getattr(owner, name), [], threading.Lock()

    def failing(*arguments: Any) -> Any:
        with lock:
            calls.append(name)
            fails = len(calls) == nth
        if fails:
            raise error.with_traceback(None)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        with pytest.raises((SiltstoneError, OSError, MemoryError)):
            siltstone.open(path, workers=2)
    error.__traceback__ = None
    assert belongings() == before
    siltstone.open(path, workers=2).close()


@pytest.mark.parametrize("call", ["pipe2", "pidfd_open", "memfd_create"])
def test_an_opening_without_descriptors_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "store.silt"
    siltstone.open(path, workers=0, **SMALL).close()
    before = belongings()
    real, lock, nth = getattr(os, call), threading.Lock(), 0
    while True:
        nth += 1
        calls = []

        def failing(*arguments: Any, nth: int = nth, calls: list[int] = calls) -> Any:
            with lock:
                calls.append(1)
                fails = len(calls) == nth
            if fails:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                siltstone.open(path, workers=2).close()
            except SiltstoneError:
                assert len(calls) >= nth
            else:
                break
        assert belongings() == before, f"call {nth}"
    # Each of them was reached.
    assert len(calls) < nth
    assert nth > 2
    assert belongings() == before


def test_a_restart_without_descriptors_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        store.put(info(1))
        store.flush()
        serving = belongings()
        real, failures = os.pidfd_open, []

        def failing(pid: int) -> int:
            if not failures:
                failures.append(pid)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(pid)

        monkeypatch.setattr(os, "pidfd_open", failing)
        kill(pids(store)[0])
        until(lambda: failures and all_serve(store), "the second try succeeds")
        until(lambda: belongings() == serving, f"{serving}")
        try:
            store.flush()
        except OutcomeUnknownError:
            pytest.fail("all had been flushed")


def test_a_close_that_fails_while_it_ends_a_worker_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.silt"
    before = belongings()
    store = siltstone.open(path, workers=2, **SMALL)
    store.put(info(1))

    def cut_off(_self: Keeper, _patience: float) -> bool:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "close", cut_off)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    store.close()
    del store
    assert belongings() == before
    with siltstone.open(path, workers=0) as reopened:
        assert reopened.info().clean
        assert_holds(reopened, [1])
