"""Who lets readers of other processes in: nothing that fails there is kept quiet, or ends the letting in."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from store_records import assert_holds, digest, rows
from worker_stores import all_serve, kill, pids, until

import siltstone
from siltstone.errors import ClosedError, LockedError, ShardAwayError
from siltstone_workers import sharing
from siltstone_workers.sharing import address

if TYPE_CHECKING:
    from collections.abc import Iterator


DESCRIPTORS = Path("/proc/self/fd")


def filled(path: Path) -> siltstone.Store:
    """A store that is open here with a worker."""
    store = siltstone.open(path, workers=1, shards=1)
    store.put_many(*rows(range(100)))
    store.flush()
    return store


@contextmanager
def living_child() -> Iterator[None]:
    """A child of this process that has everything which it had open, and lives on."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def is_told(reader: siltstone.Store) -> bool:
    """Whether a reader knows that whom it reads from has gone."""
    try:
        reader.get(digest(1))
    except ClosedError:
        return True
    except ShardAwayError:
        pass
    return False


def lets_in(path: Path) -> bool:
    try:
        siltstone.open(path, read_only=True).close()
    except LockedError:
        return False
    return True


def test_a_name_that_is_taken_is_told_and_the_store_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.silt"
    with filled(path) as store:
        uuid = store._core.volume.superblock.uuid
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.bind(address(uuid))
        with siltstone.open(path, workers=1) as store:
            assert_holds(store, range(100))
            assert [each.levelname for each in caplog.records] == ["WARNING"]
            assert "other processes cannot read it" in caplog.text
            assert uuid.hex() in caplog.text
            with pytest.raises(LockedError):
                siltstone.open(path, read_only=True)


def test_a_reader_that_cannot_be_let_in_waits_and_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, tries = tmp_path / "store.silt", []

    def accept(_listening: socket.socket) -> Any:
        tries.append(1)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with filled(path) as store, siltstone.open(path, read_only=True) as reader:
        shares = store._core.shards._sharing
        with monkeypatch.context() as patch, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            patch.setattr(socket.socket, "accept", accept)
            patch.setattr(sharing, "_REST_SECONDS", 3600.0)
            waiting.connect(address(store._core.volume.superblock.uuid))
            until(lambda: tries, "it was tried")
            kill(pids(store)[0])
            until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "it is back")
            until(lambda: reader.workers()[0].restarts == 1, "the reader is told")
            # Not again and again all the while.
            assert len(tries) == 1
            assert caplog.text.count("cannot be let in") == 1
            patch.setattr(sharing, "_REST_SECONDS", 0.01)
            shares._rests_until = 0.01
            shares.changed()
            until(lambda: len(tries) > 3, "it is tried again")
            assert caplog.text.count("cannot be let in") == 1
        # As soon as there are descriptors again.
        with siltstone.open(path, read_only=True) as another:
            assert_holds(another, range(100))


def test_an_error_while_a_reader_is_told_is_logged_and_the_next_one_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.silt"

    def fail() -> Any:
        raise RuntimeError("no description today")

    with filled(path) as store, siltstone.open(path, read_only=True) as reader:
        shares = store._core.shards._sharing
        with monkeypatch.context() as patch:
            patch.setattr(shares, "_describe", fail)
            shares.changed()
            until(lambda: is_told(reader), "a reader that was not told what changed does not go on")
            with pytest.raises(LockedError):
                siltstone.open(path, read_only=True)
        assert "no description today" in caplog.text
        until(lambda: lets_in(path), "the next one is let in")
        with siltstone.open(path, read_only=True) as another:
            assert_holds(another, range(100))


def test_a_forked_child_keeps_no_reader_from_hearing_of_the_end(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    store = filled(path)
    with siltstone.open(path, read_only=True) as reader, living_child():
        store.close()
        until(lambda: is_told(reader), "the reader is told")


def test_a_forked_child_keeps_no_name_that_the_next_core_needs(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    store = filled(path)
    with living_child():
        store.close()
        with filled(path), siltstone.open(path, read_only=True) as reader:
            assert_holds(reader, range(100))


def test_whoever_tells_of_a_change_when_readers_were_let_go_writes_nowhere(tmp_path: Path) -> None:
    """The thread may end between any two steps of those who wake it, and others get its descriptors' numbers."""
    with filled(tmp_path / "store.silt") as store:
        shares = store._core.shards._sharing
        # As where it had just been woken by another change.
        shares._over = True
        shares.changed()
        shares._thread.join()
        others = [os.pipe() for _ in range(8)]
        shares.changed()
        store.close()
        others += [os.pipe() for _ in range(8)]
        shares.changed()
        for reading, writing in others:
            os.close(writing)
            assert os.read(reading, 1) == b""
            os.close(reading)


def test_a_close_that_is_cut_off_while_it_waits_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "store.silt")
    shares = store._core.shards._sharing
    pipe = (DESCRIPTORS / str(shares._wake_reading)).readlink()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shares._thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shares.close()
    shares._thread.join()
    for descriptor in list(DESCRIPTORS.iterdir()):
        with suppress(FileNotFoundError):
            assert descriptor.readlink() != pipe
    store.close()
