"""A flush, or a close, that is interrupted: what a worker lost is told all the same, by the next."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from interrupts import Anywhere
from store_records import hashes, info
from worker_stores import all_serve, until

import siltstone
from siltstone.errors import DiskFullError, OutcomeUnknownError
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import Failures, ends_from_wire, ends_to_wire, failures_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from siltstone_workers.process import WorkerProcess


class Failing:
    """Lets a store's worker tell of appends that failed, as it does where there is no space for what nobody waits for.

    :param when_told: called once it has been told of the first time
    """

    def __init__(self, store: siltstone.Store, when_told: Callable[[], None] = lambda: None) -> None:
        self.host: Any = store._core.shards  # type: ignore[union-attr]
        self.process: WorkerProcess = self.host._keepers[0].process
        self.number = 0
        self._when_told = when_told
        self._result = self.process.result
        self.process.result = self.result  # type: ignore[method-assign]

    def result(self, answer: Any, kind: Kind, **options: Any) -> Any:
        bulk = self._result(answer, kind, **options)
        failures = Failures(self.number, DiskFullError("no space for it") if self.number else None)
        if kind == Kind.END:
            return memoryview(pack_value(ends_to_wire(ends_from_wire(unpack_value(bulk))[0], failures)))
        if kind != Kind.FLUSH or not self.number:
            return bulk
        when_told, self._when_told = self._when_told, lambda: None
        when_told()
        return memoryview(pack_value(failures_to_wire(failures)))


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_append_that_failed_is_told_once_also_after_a_flush_that_was_interrupted(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1) as store:
        worker = Failing(store, interrupt)
        store.put(info(1))
        worker.number = 1
        with pytest.raises(KeyboardInterrupt):
            store.flush()
        with pytest.raises(DiskFullError, match="no space for it"):
            store.flush()
        for number in (2, 3):
            store.put(info(number))
            store.flush()
        worker.number = 2
        store.put(info(4))
        with pytest.raises(DiskFullError):
            store.flush()
        store.flush()
        assert store.losses == 2


def test_an_interrupt_anywhere_in_a_flush_keeps_no_failed_append_from_being_told(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1) as store:
        worker = Failing(store)
        for place in itertools.count(1):
            store.put(info(place))
            worker.number += 1
            try:
                was_interrupted = Anywhere(place).while_(store.flush)
            except DiskFullError:
                break
            with pytest.raises(DiskFullError):
                store.flush()
            assert was_interrupted, place
        assert place > 10


def test_a_close_tells_of_an_append_that_failed(tmp_path: Path) -> None:
    store = siltstone.open(tmp_path / "store.silt", workers=1)
    worker = Failing(store)
    store.put(info(1))
    worker.number = 1
    with pytest.raises(DiskFullError, match="no space for it"):
        store.close()
    store.close()


def test_an_interrupt_anywhere_in_a_flush_that_meets_a_death_keeps_no_loss_from_being_told(
    tmp_path: Path,
) -> None:
    for place in itertools.count(1):
        with siltstone.open(tmp_path / f"{place}.silt", workers=1, shards=1) as store:
            host: Any = store._core.shards  # type: ignore[union-attr]
            process: WorkerProcess = host._keepers[0].process
            bar, buried = host.publisher.bar, threading.Event()

            def bury_later(process: WorkerProcess, bar: Any = bar, buried: threading.Event = buried) -> None:
                buried.wait(20.0)
                bar(process)

            # Its keeper does not mourn it before this test has.
            host.publisher.bar = bury_later
            store.put(info(1))
            process.kill("a test wants it")
            assert process.wait(20.0)
            was_interrupted = Anywhere(place).while_(lambda host=host, process=process: host.mourn(process))
            buried.set()
            until(
                lambda host=host, process=process: host._keepers[0].process is not process,
                "its keeper has buried it",
            )
            assert store.losses >= 1, place
            with suppress(OutcomeUnknownError):
                store.flush()
        if not was_interrupted:
            break
    assert place > 3


@pytest.mark.parametrize("answer", [None, b"", b"\1", b"\0\1\2", b"\0\1\1\1"])
def test_an_answer_that_is_none_to_a_deletion_ends_the_worker(tmp_path: Path, answer: bytes | None) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, shards=1) as store:
        for number in range(3):
            store.put(info(number))
        store.flush()
        process: Any = store._core.shards._keepers[0].process  # type: ignore[union-attr]
        process.result = lambda _answer, _kind, **_options: answer
        with pytest.raises(OutcomeUnknownError, match="deletion of 3 keys"):
            store.delete_many(hashes(range(3)))
        until(lambda: store.losses and all_serve(store), "another one serves")
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        assert store.delete_many(hashes(range(3))).tolist() in ([True] * 3, [False] * 3)
