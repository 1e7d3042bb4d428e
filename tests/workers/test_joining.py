"""Readers of a store that another process writes: what they are given is checked, and no lookup waits for ever."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from store_records import assert_holds, digest, info, rows
from worker_stores import PATIENCE_S, all_serve, keys_of, kill, leave_in_a_change, pids, shared_memory, until

import siltstone
from siltstone.errors import ClosedError, ProtocolError, ShardAwayError, ShardStoppedError, SiltstoneError
from siltstone.log_store.memory import IndexSize
from siltstone.log_store.memory import shared_memory as make_shared_memory
from siltstone.log_store.mirror import MirrorSpace
from siltstone_workers import joining
from siltstone_workers.frames import pack_value
from siltstone_workers.joining import JoinedShards
from siltstone_workers.sharing import SHARING_VERSION, address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = IndexSize(32, 1 << 16, 1000)
MEMORY_DESCRIPTORS = """
import os
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        continue
    if "memfd:siltstone" in target:
        print(name, target)
"""


def test_a_program_that_a_reader_starts_inherits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=2), siltstone.open(path, read_only=True):
        assert shared_memory()
        command = [sys.executable, "-c", MEMORY_DESCRIPTORS]
        done = subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True)
        assert done.stdout == ""


# ---- what somebody else hands out


def unsealed(size: int) -> int:
    made = os.memfd_create("siltstone index")
    os.ftruncate(made, size)
    return made


def a_file(path: Path, size: int) -> int:
    with path.open("wb") as file:
        file.truncate(size)
    return os.open(path, os.O_RDONLY)


@contextmanager
def handing_out(store: siltstone.Store, *descriptors: int) -> Iterator[None]:
    """Whoever comes to read is told of one worker with this memory."""
    volume = store._core.volume
    worker = {
        "number": 0,
        "pid": None,
        "state": "serving",
        "restarts": 0,
        "last_error": "",
        "serves": True,
        "shards": [0],
        "sizes": [(SIZE.segments, SIZE.window_bytes, SIZE.records)],
        "mirrored": False,
    }
    told = {"version": SHARING_VERSION, "medium": volume.backend.identity(), "workers": [worker]}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address(volume.superblock.uuid))
        listening.listen()

        def serve() -> None:
            reader, _address = listening.accept()
            with reader:
                socket.send_fds(reader, [pack_value(told)], list(descriptors))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            for descriptor in descriptors:
                os.close(descriptor)


@pytest.mark.parametrize(
    ("index", "mirrors", "says"),
    [
        (lambda _path: make_shared_memory("siltstone index", 4096), None, "4096 bytes"),
        (lambda _path: unsealed(SIZE.address_bytes), None, "not sealed"),
        (lambda path: a_file(path, SIZE.address_bytes), None, "no shared memory"),
        (None, lambda _path: make_shared_memory("siltstone mirrors", 4096), "4096 bytes"),
        (None, lambda _path: unsealed(MirrorSpace.BYTES), "not sealed"),
    ],
    ids=["short", "unsealed", "file", "short-mirrors", "unsealed-mirrors"],
)
def test_memory_that_could_end_under_a_lookup_is_not_mapped(
    tmp_path: Path,
    index: Callable[[Path], int] | None,
    mirrors: Callable[[Path], int] | None,
    says: str,
) -> None:
    path = tmp_path / "store.silt"
    other = tmp_path / "other"
    with siltstone.open(path, workers=0, shards=1) as store:
        descriptors = (
            make_shared_memory("siltstone index", SIZE.address_bytes) if index is None else index(other),
            MirrorSpace.share(1) if mirrors is None else mirrors(other),
        )
        with (
            handing_out(store, *descriptors),
            pytest.raises(ProtocolError, match=says),
        ):
            siltstone.open(path, read_only=True)


def test_a_description_with_too_few_descriptors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0, shards=1) as store:
        memory = make_shared_memory("siltstone index", SIZE.address_bytes)
        with handing_out(store, memory), pytest.raises(ProtocolError):
            siltstone.open(path, read_only=True)


def test_a_description_that_does_not_arrive_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0, shards=1) as store:
        descriptors = [
            make_shared_memory("siltstone index", 4096) for _each in range(joining.DESCRIPTORS_MAX + 1)
        ]
        with handing_out(store, *descriptors), pytest.raises(ProtocolError, match="cut short"):
            siltstone.open(path, read_only=True)


# ---- lookups that nobody answers


def test_a_lookup_that_meets_an_endless_change_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.silt"
    monkeypatch.setattr(joining, "_STUCK_SECONDS_MAX", 0.2)
    with siltstone.open(path, workers=1, shards=1) as store:
        store.put(info(1))
        store.flush()
        with siltstone.open(path, read_only=True) as reader:
            assert reader.get(digest(1)) == info(1)
            pid = pids(store)[0]
            kill(pid, signal.SIGSTOP)
            leave_in_a_change(store)
            with pytest.raises(ShardAwayError, match="in the middle of a change") as caught:
                reader.get(digest(2))
            assert (caught.value.shard, caught.value.worker) == (0, 0)
            kill(pid)
            until(lambda: store.workers()[0].restarts == 1 and all_serve(store), "another one serves")

            def answers() -> bool:
                try:
                    return reader.get(digest(1)) == info(1) and reader.get(digest(2)) is None
                except ShardAwayError:
                    return False

            until(answers, "the reader looks into its memory")


def test_a_reader_is_told_that_a_shard_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "store.silt"
    store = siltstone.open(path, workers=2, shards=4)
    try:
        dead, alive = keys_of(store, 0, 2, 50), keys_of(store, 1, 2, 50)
        store.put_many(*rows([*dead, *alive]))
        store.flush()
        with siltstone.open(path, read_only=True) as reader:
            assert_holds(reader, dead)
            while (worker := store.workers()[0]).state != "stopped":
                if worker.state == "serving":
                    kill(worker.pid)
                    until(lambda pid=worker.pid: store.workers()[0].pid != pid, "it is gone")

            def error() -> SiltstoneError | None:
                try:
                    reader.get(digest(dead[0]))
                except SiltstoneError as error:
                    return error
                return None

            until(lambda: isinstance(error(), ShardStoppedError), "the reader is told")
            told = error()
            assert (told.shard in range(0, 4, 2), told.worker) == (True, 0)
            assert "SIGKILL" in told.cause
            assert_holds(reader, alive)
    finally:
        with pytest.raises(ShardStoppedError):
            store.close()


def test_a_close_while_the_reader_takes_over_what_it_is_told_leaves_nothing_to_look_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.silt"
    begun, take = threading.Event(), JoinedShards._take

    def late(shards: JoinedShards, *told: Any) -> None:
        if shards._told:
            begun.set()
            until(lambda: shards._reader is None, "it is being closed")
        take(shards, *told)

    monkeypatch.setattr(JoinedShards, "_take", late)
    with siltstone.open(path, workers=1, shards=1) as store:
        reader = siltstone.open(path, read_only=True)
        shards = reader._core.shards
        store._core.shards._sharing.changed()
        assert begun.wait(PATIENCE_S)
        reader.close()
        with pytest.raises(ClosedError, match="the store is closed"):
            shards.reader.get(2, digest(1))
