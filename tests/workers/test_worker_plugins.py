"""Plugins that fail, hang or are missing, with worker processes: an error for whoever asked, and nobody else."""

from __future__ import annotations

import importlib
import os
import resource
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fake_distributions import Site
from store_records import assert_holds, digest, info, rows
from worker_stores import SMALL, all_serve, ends_within, keys_of, pids, settle, until, workers_of

import siltstone
from siltstone.errors import OutcomeUnknownError, PluginError, PluginLoadError, SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTES = """
import os
from siltstone.plugin import Consumer, EntryType, hookimpl

#: what the consumer has got, and what it is to do with it
got, mode, codec = [], "take", "good"

class Note:
    def __init__(self, text):
        self.text = text

def encode(note):
    if codec == "raises":
        raise RuntimeError("no codec today")
    return note.text.encode()

def consume(batch):
    if mode == "raises":
        raise RuntimeError("no appetite")
    while mode == "hangs":
        release.wait(0.05)
    got.extend((os.getpid(), payload.decode()) for payload in batch.payloads)

import threading
release = threading.Event()

@hookimpl
def siltstone_entry_types():
    yield EntryType(id=220, name="note", version=1, record=Note, encode=encode, decode=lambda payload: Note(
        bytes(payload).decode()))

@hookimpl
def siltstone_consumers():
    yield Consumer(name="notes", entry_types=frozenset({"note"}), consume=consume)
"""

NEEDS_CORE = """
import os
if os.environ.get("SILTSTONE_TEST_CORE") != str(os.getpid()):
    raise ImportError("not in this process")
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.remove()


@pytest.fixture
def notes(site: Site) -> Any:
    site.add("notes-one", "1", {"notes": NOTES})
    return importlib.import_module("notes_one_notes_plugin")


def write_notes(path: Path, notes: Any, count: int) -> list[str]:
    texts = [f"note {number}" for number in range(count)]
    with siltstone.open(path, workers=2, shards=4, **SMALL) as store:
        store.put_many(*rows(range(1000)))
        for text in texts:
            store.put(notes.Note(text))
        store.flush()
    return texts


def keepers() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("siltstone-worker")]


def test_entries_without_a_key_reach_the_consumers_of_the_core(tmp_path: Path, notes: Any) -> None:
    path = tmp_path / "store.silt"
    texts = write_notes(path, notes, 5000)
    with siltstone.open(path, workers=2) as store:
        assert [text for _pid, text in notes.got] == texts
        assert {pid for pid, _text in notes.got} == {os.getpid()}
        # Once, at the opening: not again when a worker is started again.
        for pid in pids(store):
            os.kill(pid, 9)
        until(lambda: all(each.restarts for each in store.workers()) and all_serve(store), "both are back")
        assert len(notes.got) == 5000


@pytest.mark.parametrize("mode", ["raises", "hangs"])
def test_a_consumer_that_fails_costs_the_opening_an_error(tmp_path: Path, notes: Any, mode: str) -> None:
    path = tmp_path / "store.silt"
    texts = write_notes(path, notes, 100)
    notes.mode = mode
    try:
        with ends_within(2.0), pytest.raises(PluginError):
            siltstone.open(path, workers=2, worker=siltstone.WorkerOptions(deadline=1.0))
        assert workers_of(os.getpid()) == []
    finally:
        notes.mode = "take"
    # One that hung was left behind, and ends when its consumer returns.
    until(lambda: not keepers(), "no thread is left")
    del notes.got[:]
    with siltstone.open(path, workers=2) as store:
        assert_holds(store, range(1000))
    assert set(texts) <= {text for _pid, text in notes.got}


def test_a_codec_that_raises_costs_only_its_call(tmp_path: Path, notes: Any) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, **SMALL) as store:
        before = pids(store)
        notes.codec = "raises"
        with pytest.raises(SiltstoneError):
            store.put(notes.Note("one"))
        notes.codec = "good"
        store.put(notes.Note("two"))
        store.put(info(1))
        store.flush()
        assert store.get(digest(1)) == info(1)
        assert pids(store) == before


def test_a_plugin_that_loads_in_the_core_alone_costs_the_opening_an_error(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILTSTONE_TEST_CORE", str(os.getpid()))
    site.add("notes-one", "1", {"notes": NEEDS_CORE + NOTES})
    notes = importlib.import_module("notes_one_notes_plugin")
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0, **SMALL) as store:
        store.put(notes.Note("one"))
    with pytest.raises((PluginLoadError, PluginError)) as caught:
        siltstone.open(path, workers=2)
    assert "note" in str(caught.value)
    siltstone.open(path, workers=0).close()


def test_a_relative_site_serves_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "lib")
    sys.path[sys.path.index(str(site.path))] = "lib"
    try:
        site.add("notes-one", "1", {"notes": NOTES})
        notes = importlib.import_module("notes_one_notes_plugin")
        with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
            store.put(notes.Note("one"))
            store.put(info(1))
            store.flush()
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")
            # Nor does it matter what becomes of the path after the opening.
            sys.path.remove("lib")
            os.kill(pids(store)[0], 9)
            until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is started from there")
            assert store.get(digest(1)) == info(1)
    finally:
        sys.path.append(str(site.path))
        site.remove()


# ---- media and memory that fail one worker

FAILING = """
from dataclasses import replace
from pathlib import Path
import errno
from siltstone.errors import MediumError
from siltstone.plugin import BackendType, hookimpl
from siltstone_plugins import file

def attach(rest, options, handover):
    backend = file.attach_file(rest, options, handover)
    flush = backend.flush
    def failing():
        # The process that is named there is the one to fail.
        import os
        switch = Path(rest + ".fails")
        if switch.exists() and switch.read_text() == str(os.getpid()):
            raise MediumError("the flush failed", url=rest, operation="flush", offset=0, length=0, errno=errno.EIO)
        flush()
    backend.flush = failing
    return backend

@hookimpl
def siltstone_backends():
    yield BackendType(scheme="failing", open=file.open_file, attach=attach)
"""


def test_a_failing_medium_of_one_worker_leaves_the_others_alone(tmp_path: Path, site: Site) -> None:
    site.add("failing-one", "1", {"failing": FAILING})
    path = tmp_path / "store.silt"
    with siltstone.open(f"failing:{path}", workers=2, **SMALL) as store:
        failing, alive = keys_of(store, 0, 2, 100), keys_of(store, 1, 2, 100)
        store.put_many(*rows([*failing, *alive]))
        store.flush()
        switch = path.with_name(path.name + ".fails")
        switch.write_text(str(pids(store)[0]))
        store.put_many(*rows(failing, version=1))
        with pytest.raises(SiltstoneError) as caught:
            store.flush()
        assert "flush" in str(caught.value)
        # What is poisoned acknowledges nothing; the other worker does.
        for version in range(2, 4):
            store.put_many(*rows(alive, version=version))
            assert_holds(store, alive, version=version)
        with pytest.raises(SiltstoneError):
            store.put_many(*rows(failing, version=5))
            store.flush()
        os.kill(pids(store)[0], 9)
        switch.unlink()
        until(
            lambda: store.workers()[0].restarts and all_serve(store), "it is back, with a medium that works"
        )
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        store.put_many(*rows([*failing, *alive], version=9))
        store.flush()
        assert_holds(store, [*failing, *alive], version=9)


def test_a_worker_without_memory_ends_and_is_replaced(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=2, **SMALL) as store:
        poor, alive = keys_of(store, 0, 2, 40_000), keys_of(store, 1, 2, 100)
        store.put_many(*rows(alive))
        store.flush()
        pid = pids(store)[0]
        resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
        told = None
        for version in range(50):
            try:
                store.put_many(*rows(poor, version=version))
                store.flush()
            except SiltstoneError as error:
                told = error
                break
        assert told is not None
        assert_holds(store, alive)
        until(lambda: len(pids(store)) == 2 and all_serve(store), "it serves, in one process or another")
        assert_holds(store, alive)
        # Where it got by with the memory that it had, it has refused what it could not take, and is ended here.
        restarts = store.workers()[0].restarts
        os.kill(pids(store)[0], 9)
        until(lambda: store.workers()[0].restarts > restarts and all_serve(store), "another serves")
        settle(store)
        store.put_many(*rows(poor, version=99))
        store.flush()
        assert_holds(store, poor, version=99)
