"""Lookups in a store whose workers are still starting: right at once, and never from what is no longer there."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from store_records import assert_holds, assert_lacks, digest, info, rows
from worker_stores import SMALL, until

import siltstone
from siltstone.core.starting import EarlyReader
from siltstone.errors import DiskFullError, SiltstoneError, WorkerError
from siltstone.plugin.host import PluginHost
from siltstone.plugin.hosting import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EARLY: dict[str, Any] = {"workers": 2, "worker": WorkerOptions(wait=False)}


@pytest.fixture(params=[20_000, 400], ids=["checkpoints", "journals"])
def closed(path: Path, request: pytest.FixtureRequest) -> Path:
    """A store that was closed cleanly, with checkpoints or too small for them."""
    with siltstone.open(path, workers=0, shards=4, **SMALL) as store:
        store.put_many(*rows(range(request.param)))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.silt"


class Gate:
    """A program in the place of the interpreter that starts workers once it may."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = folder / "open"
        script = folder / "python"
        script.write_text(
            f'#!/bin/sh\nwhile [ ! -e "{self._open}" ]; do sleep 0.01; done\nexec "{sys.executable}" "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    def open(self) -> None:
        self._open.touch()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate(tmp_path, monkeypatch)
    yield found
    found.open()


def test_lookups_do_not_wait_for_the_workers_and_puts_do(closed: Path, gate: Gate) -> None:
    store = siltstone.open(closed, **EARLY)
    assert_holds(store, range(400))
    assert_lacks(store, range(50_000, 50_100))
    assert store.get(digest(17)) == info(17)
    assert store.get(digest(1 << 40)) is None
    returned = threading.Event()

    def put() -> None:
        store.put_many(*rows(range(300), 1))
        returned.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not returned.wait(0.3)
    assert_holds(store, range(400))
    gate.open()
    thread.join(60)
    assert_holds(store, range(300), 1)
    assert_holds(store, range(300, 400))
    assert [worker.state for worker in store.workers()] == ["serving"] * 2
    store.flush()
    store.close()
    with siltstone.open(closed, workers=0) as store:
        assert_holds(store, range(300), 1)
        assert_holds(store, range(300, 400))


def test_a_configuration_says_whether_to_wait(closed: Path, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "store.toml").write_text(
        f'[volume]\ntarget = "{closed}"\n[store]\nworkers = 2\n[workers]\nwait = false\n'
    )
    with siltstone.open(tmp_path / "store.toml") as store:
        assert_holds(store, range(400))
        gate.open()


def test_a_lookup_that_began_before_the_workers_were_there_sees_what_was_put_since(
    closed: Path, gate: Gate
) -> None:
    with siltstone.open(closed, **EARLY) as store:
        early = store._core.shards.reader
        assert isinstance(early, EarlyReader)
        gate.open()
        store.put(info(3, 1))
        store.delete(digest(4))
        kind = store._default.id
        assert early.get(kind, digest(3)) == store._core.reader.get(kind, digest(3))
        assert early.get(kind, digest(4)) is None
        found, _payloads = early.get_many(
            kind, np.frombuffer(digest(4) + digest(5), np.uint8).reshape(2, 32), 48
        )
        assert found.tolist() == [False, True]


def test_nothing_is_answered_from_space_that_was_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker packs a journal, and its place is taken, before the last of them serves."""
    with siltstone.open(path, workers=0, shards=1, **SMALL) as store:
        store.put_many(*rows(range(20_000)))
        kept = np.arange(0, 20_000, 3)
        store.put_many(*rows(np.setdiff1d(np.arange(20_000), kept), 1))
        store.pack()
        store.delete_many(rows(np.setdiff1d(np.arange(20_000), kept))[0])
    usual = PluginHost.shard_host
    packed, may_serve = threading.Event(), threading.Event()

    def shard_host(self: PluginHost, name: str) -> Any:
        kind = usual(self, name)

        def open_slowly(hosting: Any) -> Any:
            host = kind.open(hosting)
            host.tidy(incarnate=True)
            packed.set()
            may_serve.wait(60)
            return host

        return replace(kind, open=open_slowly)

    monkeypatch.setattr(PluginHost, "shard_host", shard_host)
    store = siltstone.open(path, **EARLY)
    early = store._core.shards.reader
    assert isinstance(early, EarlyReader)
    assert packed.wait(60)
    # It answers no more: who asks now waits for the host.
    threading.Timer(0.2, may_serve.set).start()
    found, _payloads = early.get_many(store._default.id, rows(kept)[0], 48)
    assert may_serve.is_set()
    assert found.all()
    store.close()


def test_workers_that_cannot_be_started_are_told_to_who_needs_them(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    store = siltstone.open(closed, **EARLY)
    assert_holds(store, range(400))
    for call in (lambda: store.put(info(1)), store.flush, lambda: len(store), store.close):
        with pytest.raises(SiltstoneError) as caught:
            call()
        assert isinstance(caught.value, WorkerError) and not isinstance(caught.value, DiskFullError)
    monkeypatch.undo()
    with siltstone.open(closed, workers=0) as store:
        assert_holds(store, range(400))
        store.put(info(1, 1))


def test_a_store_that_was_not_closed_is_opened_as_ever(closed: Path) -> None:
    store = siltstone.open(closed, workers=0)
    store.put_many(*rows(range(100), 1))
    store.flush()
    store._core.abandon()
    with siltstone.open(closed, **EARLY) as store:
        assert_holds(store, range(100), 1)
        assert [worker.state for worker in store.workers()] == ["serving"] * 2


def test_closing_at_once_leaves_nothing_behind(closed: Path) -> None:
    for _time in range(3):
        with siltstone.open(closed, **EARLY) as store:
            assert store.get(digest(5)) == info(5)
    until(
        lambda: all(each.name != "siltstone-starter" for each in threading.enumerate()), "no thread is left"
    )
    with siltstone.open(closed, workers=0) as store:
        assert store.info().clean
        assert_holds(store, range(400))
