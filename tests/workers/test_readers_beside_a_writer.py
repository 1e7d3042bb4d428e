"""Stores that are read in one process while another one writes them with workers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from real_media import child
from store_media import medium
from store_records import assert_holds, assert_lacks, digest, hashes, info, rows
from worker_stores import PATIENCE_S, all_serve, keys_of, kill, pids, until

import siltstone
from siltstone.errors import ClosedError, LockedError, ReadOnlyError, ShardAwayError
from siltstone_workers.memory import WorkerMemory
from siltstone_workers.sharing import READERS_MAX, address

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from siltstone.log_store.memory import IndexSize

#: writes what it is told, a line of JSON each: put, delete, worker to kill; answers when it is flushed
WRITER = """
import json, os, signal, sys
import siltstone
from store_records import hashes, rows
store = siltstone.open(sys.argv[1], workers=int(sys.argv[2]), shards=4)
print("open", flush=True)
for line in sys.stdin:
    what, *numbers = json.loads(line)
    if what == "put":
        store.put_many(*rows(range(numbers[0], numbers[1]), numbers[2]))
    elif what == "delete":
        store.delete_many(hashes(range(numbers[0], numbers[1])))
    elif what == "kill":
        os.kill(store.workers()[numbers[0]].pid, signal.SIGKILL)
        while store.workers()[numbers[0]].restarts == 0 or store.workers()[numbers[0]].state != "serving":
            pass
    store.flush()
    print("done", flush=True)
store.close()
"""


class Writer:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def do(self, *command: Any) -> None:
        """Have it done and flushed."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def writer(path: Path | str, workers: int = 2) -> Iterator[Writer]:
    with child(WRITER, path, workers) as process:
        assert process.stdout.readline() == "open\n"
        yield Writer(process)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reader_sees_what_the_writer_flushed(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "store.silt"
    siltstone.create(path, shards=4, erase_block=64 * 1024)
    with writer(path, workers) as other:
        other.do("put", 0, 3000, 0)
        with siltstone.open(path, read_only=True) as store:
            assert store.read_only
            assert "another process" in store.read_only_reason
            assert_holds(store, range(3000))
            assert len(store) == 3000
            other.do("put", 0, 1000, 1)
            assert_holds(store, range(1000), 1)
            other.do("delete", 500, 600)
            assert_lacks(store, range(500, 600))
            # The volume grows, and journals roll, while it is open here.
            for start in range(3000, 200_000, 40_000):
                other.do("put", start, start + 40_000, 0)
                assert_holds(store, range(start, start + 40_000, 7))
            assert [worker.number for worker in store.workers()] == list(range(workers))
            assert [worker.number for worker in store.info().workers] == list(range(workers))
            with pytest.raises(ReadOnlyError):
                store.flush()


def test_small_puts_get_to_a_reader_without_a_flush(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=1) as store, siltstone.open(path, read_only=True) as reader:
        # At once, so that the second waits for company until the worker has told of the first.
        store.put(info(0))
        store.put(info(1))
        numbers, last = iter(range(2, 600)), time.monotonic()

        def is_seen() -> bool:
            nonlocal last
            # Fewer bytes of them than are worth a message by themselves, however long it takes.
            if time.monotonic() > last + 0.05:
                store.put(info(next(numbers)))
                last = time.monotonic()
            return reader.get(digest(2)) is not None

        until(is_seen, "a put that came after the worker told is seen")
        assert_holds(reader, range(2))


def test_several_readers_and_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with writer(path) as other:
        other.do("put", 0, 500, 0)
        stores = [siltstone.open(path, read_only=True) for _reader in range(5)]
        for store in stores:
            assert_holds(store, range(500))
        stores.pop().close()
        other.do("put", 500, 600, 0)
        for store in stores:
            assert_holds(store, range(600))
            store.close()
        with siltstone.open(path, read_only=True) as store:
            assert_holds(store, range(600))


def test_a_device_that_is_written_past_the_cache_is_read_right(tmp_path: Path) -> None:
    with medium("loop-4096-direct", tmp_path) as on:
        siltstone.create(on.target, shards=4, erase_block=64 * 1024)
        with writer(on.target) as other:
            other.do("put", 0, 2000, 0)
            with siltstone.open(on.target, read_only=True) as store:
                for version in range(1, 6):
                    other.do("put", 0, 2000, version)
                    assert_holds(store, range(2000), version)


def test_a_worker_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with writer(path) as other:
        other.do("put", 0, 1000, 0)
        with siltstone.open(path, read_only=True) as store:
            other.do("kill", 0)

            def answers() -> bool:
                try:
                    assert_holds(store, range(1000))
                except ShardAwayError:
                    return False
                return True

            until(answers, "the reader has the new memory")
            other.do("put", 1000, 1500, 0)
            assert_holds(store, range(1500))


def test_readers_are_let_in_while_a_worker_gets_its_new_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=2, shards=4) as store:
        away, alive = keys_of(store, 0, 2, 100), keys_of(store, 1, 2, 100)
        store.put_many(*rows([*away, *alive]))
        store.flush()
        begun, gate, share = threading.Event(), threading.Event(), WorkerMemory.share

        def held(sizes: Sequence[IndexSize]) -> WorkerMemory:
            begun.set()
            assert gate.wait(PATIENCE_S)
            return share(sizes)

        monkeypatch.setattr(WorkerMemory, "share", held)
        kill(pids(store)[0])
        assert begun.wait(PATIENCE_S)
        try:
            with siltstone.open(path, read_only=True) as reader:
                assert_holds(reader, alive)
                with pytest.raises(ShardAwayError):
                    reader.get(digest(away[0]))
                assert [worker.state for worker in reader.workers()] == ["away", "serving"]
        finally:
            gate.set()
        until(lambda: all_serve(store), "it is back")
        with siltstone.open(path, read_only=True) as reader:
            assert_holds(reader, [*away, *alive])


@pytest.mark.parametrize("killed", [False, True])
def test_a_reader_says_so_when_the_writer_has_gone(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "store.silt"
    with writer(path) as other:
        other.do("put", 0, 1000, 0)
        with siltstone.open(path, read_only=True) as store:
            other.process.kill() if killed else other.process.stdin.close()
            other.process.wait()

            def has_ended() -> bool:
                try:
                    store.get_many(hashes(range(100)))
                except ClosedError as error:
                    return "open it again" in str(error)
                except ShardAwayError:
                    pass
                return False

            until(has_ended, "the reader is told")
            with pytest.raises(ClosedError):
                store.get(digest(1))
    with siltstone.open(path, read_only=True) as store:
        assert_holds(store, range(1000))


def test_a_reader_cannot_write_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with (
        siltstone.open(path, workers=1) as store,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as reader,
    ):
        reader.connect(address(store._core.volume.superblock.uuid))
        _data, descriptors, _flags, _address = socket.recv_fds(reader, 1 << 17, 16)
        assert len(descriptors) == 2
        for descriptor in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(descriptor, b"x")
            os.close(descriptor)


def test_readers_that_do_not_listen_or_are_too_many_disturb_nobody(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=1) as store:
        connected = []
        for _reader in range(READERS_MAX):
            reader = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            reader.connect(address(store._core.volume.superblock.uuid))
            # Its turn has come once it has got something; from then on it does not listen.
            for descriptor in socket.recv_fds(reader, 1 << 17, 16)[1]:
                os.close(descriptor)
            connected.append(reader)
        with pytest.raises(LockedError, match="too many readers"):
            siltstone.open(path, read_only=True)
        store.put_many(*rows(range(100)))
        store.flush()
        kill(pids(store)[0])
        until(
            lambda: store.workers()[0].restarts == 1 and store.workers()[0].state == "serving", "it is back"
        )
        assert_holds(store, range(100))
        for reader in connected:
            reader.close()


def test_a_writer_without_workers_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0) as store:
        store.put_many(*rows(np.arange(10)))
        with pytest.raises(LockedError) as caught:
            siltstone.open(path, read_only=True)
        assert str(os.getpid()) in caught.value.holder


def test_another_user_is_let_in_by_nobody(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=1) as store:
        uuid = store._core.volume.superblock.uuid
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as reader:
                reader.connect(address(uuid))
                data, descriptors, _flags, _address = socket.recv_fds(reader, 1 << 17, 16)
            os._exit(0 if b"another user" in data and not descriptors else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_the_indexes_of_a_copy_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    original, copy = tmp_path / "store.silt", tmp_path / "copy.silt"
    with siltstone.open(original, workers=0) as store:
        store.put_many(*rows(range(100)))
    shutil.copy(original, copy)
    with writer(original) as other, siltstone.open(copy, workers=0):
        other.do("put", 100, 200, 0)
        with pytest.raises(LockedError):
            siltstone.open(copy, read_only=True)
        with siltstone.open(original, read_only=True) as store:
            assert_holds(store, range(200))
