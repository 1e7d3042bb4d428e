"""A full volume whose shards are in several processes: whoever has space to give is asked, and nobody else."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from store_records import hashes, rows
from worker_stores import SMALL, keys_of, pids, until

import siltstone
from siltstone.errors import DiskFullError, SiltstoneError
from siltstone_workers import upkeep

if TYPE_CHECKING:
    from pathlib import Path

#: a file may not be larger than this
LIMIT = 3 << 20


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store of two shards on a full file, and the first number that was not put."""
    from siltstone_plugins.file import FileBackend

    usual = FileBackend.grow

    def grow(self: FileBackend, size: int) -> None:
        if size > LIMIT:
            raise DiskFullError("no more", needed=size)
        usual(self, size)

    monkeypatch.setattr(FileBackend, "grow", grow)
    store = siltstone.open(tmp_path / "store.silt", workers=2, shards=2, **SMALL)
    number = 0
    with pytest.raises(DiskFullError):
        while True:
            store.put_many(*rows(range(number, number + 500)))
            number += 500
    store.flush()
    yield store, number + 500
    store._core.abandon()


def test_a_put_that_had_to_ask_for_space_is_covered_by_its_own_flush(
    full: tuple[Any, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread flushes after space was made and before the put is sent again."""
    store, number = full
    usual = upkeep.make_space
    flushed = []

    def make_space(*arguments: Any, **options: Any) -> bool:
        found = usual(*arguments, **options)
        if not found and not flushed:
            monkeypatch.undo()  # there is room in the file now
            found = True
            flushed.append(threading.Thread(target=store.flush))
            flushed[0].start()
            flushed[0].join()
        return found

    monkeypatch.setattr(upkeep, "make_space", make_space)
    while not flushed:
        store.put_many(*rows([number]))
        number += 1
    store.flush()
    store._core.abandon()
    with siltstone.open(tmp_path / "store.silt", workers=0) as reopened:
        assert reopened.get_many(hashes([number - 1]))[0].all()


def test_a_worker_that_starts_is_not_asked_for_space(full: tuple[Any, int]) -> None:
    store, number = full
    mine = [key for key in keys_of(store, 0, 2, 300_000) if key > number]
    before = store.workers()[1].restarts
    os.kill(pids(store)[1], signal.SIGKILL)

    def serves_again() -> bool:
        for key in mine[:20]:
            try:
                store.put_many(*rows([key]))
            except SiltstoneError:
                continue
        worker = store.workers()[1]
        assert worker.state != "stopped", worker.last_error
        return worker.state == "serving" and worker.restarts > before

    until(serves_again, "worker 1 serves again")
    assert store.workers()[1].restarts == before + 1
