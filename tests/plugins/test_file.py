"""The backend for files: what it refuses, what it survives, and what it says."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest
from real_media import child, make_file, open_made

from siltstone.errors import (
    AlreadyExistsError,
    ConfigError,
    LockedError,
    MediumError,
    NotFoundError,
    RefusedDeviceError,
)
from siltstone_plugins import _mounts, file

MIB = 1 << 20


# ---- what is opened


def test_exclusive_creation_refuses_what_is_there(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(b"precious")
    with pytest.raises(AlreadyExistsError, match="volume"):
        open_made(path, create=True, exclusive=True)
    assert path.read_bytes() == b"precious"


def test_creation_without_exclusive_opens_what_is_there(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(b"precious")
    with open_made(path, create=True) as backend:
        backend.lock()
        backend.publish()
        assert backend.read(0, 8) == b"precious"
    assert path.read_bytes() == b"precious"


def test_nothing_is_visible_before_it_is_published(tmp_path):
    with open_made(tmp_path / "volume", create=True) as backend:
        backend.lock()
        backend.grow(MIB)
        assert not (tmp_path / "volume").exists()
        backend.publish()
        assert (tmp_path / "volume").stat().st_size == MIB
        assert [path.name for path in tmp_path.iterdir()] == ["volume"]


def test_of_two_creators_one_wins_and_the_other_is_told(tmp_path):
    path = tmp_path / "volume"
    with open_made(path, create=True) as first, open_made(path, create=True) as second:
        for backend in (first, second):
            backend.lock()
            backend.grow(4096)
        second.write(0, b"second")
        second.publish()
        with pytest.raises(AlreadyExistsError):
            first.publish()
    assert path.read_bytes()[:6] == b"second"


def test_a_new_file_is_locked_when_it_appears(tmp_path):
    with make_file(tmp_path / "volume"), open_made(tmp_path / "volume") as other, pytest.raises(LockedError):
        other.lock()


def test_a_creator_that_is_killed_leaves_nothing(tmp_path):
    source = """
import os, signal, sys
from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file
backend = open_file(sys.argv[1], BackendOptions(create=True))
backend.lock()
backend.grow(1 << 20)
backend.write(0, bytes(4096))
backend.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with child(source, tmp_path / "volume") as process:
        assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    try:
        for path, kind in (
            (tmp_path, "directory"),
            (tmp_path / "fifo", "FIFO"),
            (tmp_path / "socket", "socket"),
            ("/dev/null", "character device"),
        ):
            for options in ({}, {"create": True}, {"read_only": True}):
                with pytest.raises(RefusedDeviceError, match=kind) as caught:
                    open_made(path, **options)
                assert caught.value.reason == "kind"
            assert not file.claims(str(path))
    finally:
        listener.close()


def test_symlinks_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to("far/volume")
    assert file.claims(str(link))
    with make_file(link, 4096) as backend:
        backend.write(0, b"through the link")
    assert link.is_symlink()
    assert (tmp_path / "far" / "volume").read_bytes()[:16] == b"through the link"
    with open_made(link, read_only=True) as backend:
        backend.lock()
        assert backend.size == 4096


@pytest.mark.parametrize("name", ["absent/volume", "a\0b", "", "x" * 300, "loop", "plain/volume"])
def test_paths_that_lead_nowhere(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "plain").write_bytes(b"")
    path = str(tmp_path / name) if name else ""
    for options in ({"create": True}, {}, {"read_only": True}):
        with pytest.raises((NotFoundError, MediumError)) as caught:
            open_made(path, **options)
        assert caught.value.url == path


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_made("volume", create=True) as backend:
        monkeypatch.chdir(tmp_path / "elsewhere")
        backend.lock()
        backend.grow(4096)
        backend.publish()
        assert len(backend.map(0, 4096)) == 4096
    assert (tmp_path / "volume").exists()


def test_options_are_checked(tmp_path):
    for options in (
        {"extra": {"discard": "perhaps"}},
        {"extra": {"discard": True}},
        {"extra": {"direct": True}},
        {"force": frozenset({"everything"})},
    ):
        with pytest.raises(ConfigError) as caught:
            open_made(tmp_path / "volume", create=True, **options)
        assert caught.value.key in {"discard", "direct", "force"}
    assert list(tmp_path.iterdir()) == []


def test_no_child_inherits_a_descriptor(tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    with make_file(tmp_path / "volume") as backend:
        backend.read(0, 4096, fresh=True)
        view = backend.map(0, 4096)
        mine = [entry for entry in Path("/proc/self/fd").iterdir() if entry not in before and entry.exists()]
        assert len(mine) >= 2
        assert not [entry for entry in mine if os.get_inheritable(int(entry.name))]
        view.release()


def test_a_map_keeps_no_descriptor(tmp_path):
    with make_file(tmp_path / "volume") as backend:
        backend.grow(1 << 20)
        views = [backend.map(0, 4096)]
        before = set(Path("/proc/self/fd").iterdir())
        views += [backend.map(4096 * number, 4096) for number in range(1, 100)]
        assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1  # the listing's own
        for view in views:
            view.release()


# ---- the lock


HOLD = """
import sys
from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file
backend = open_file(sys.argv[1], BackendOptions())
backend.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_lock_names_who_holds_it_and_ends_with_it(tmp_path):
    path = tmp_path / "volume"
    make_file(path).close()
    with child(HOLD, path) as process:
        assert process.stdout.readline() == "locked\n", process.stderr.read()
        for read_only in (False, True):
            with open_made(path, read_only=read_only) as backend, pytest.raises(LockedError) as caught:
                backend.lock()
            assert f"process {process.pid} (" in caught.value.holder
            assert "python" in caught.value.holder
        process.kill()
        process.wait()
        with open_made(path) as backend:
            backend.lock()


def test_a_lock_that_this_process_holds_names_it(tmp_path):
    told = pytest.raises(LockedError, match=f"process {os.getpid()} .*this process")
    with make_file(tmp_path / "volume"), open_made(tmp_path / "volume") as other, told:
        other.lock()


def test_the_holder_is_found_without_the_list_of_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("siltstone_plugins._holders._listed_locks", lambda status: iter(()))
    told = pytest.raises(LockedError, match=f"process {os.getpid()} ")
    with make_file(tmp_path / "volume"), open_made(tmp_path / "volume") as other, told:
        other.lock()


@pytest.mark.parametrize("replace", [False, True], ids=["deleted", "replaced"])
def test_a_name_that_changed_hands_before_the_lock(tmp_path, replace):
    path = tmp_path / "volume"
    make_file(path).close()
    with open_made(path) as backend:
        path.unlink()
        if replace:
            path.write_bytes(b"another file")
        with pytest.raises(MediumError, match="deleted or replaced") as caught:
            backend.lock()
        assert caught.value.errno == errno.ESTALE


def test_a_lock_sees_what_the_one_before_has_grown(tmp_path):
    path = tmp_path / "volume"
    make_file(path).close()
    with open_made(path) as late:
        with open_made(path) as early:
            early.lock()
            early.grow(3 * MIB)
        late.lock()
        assert late.size == 3 * MIB


def test_a_lock_that_does_not_reach_other_machines_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    make_file(path).close()
    device = path.stat().st_dev
    for kind, options, refused in (
        ("nfs4", {"rw", "local_lock=all"}, True),
        ("nfs4", {"rw", "local_lock=none"}, False),
        ("fuse.sshfs", {"rw"}, True),
        ("ext4", {"rw"}, False),
    ):
        mount = _mounts.Mount(device, "/mnt", kind, "server:/export", frozenset(options))
        monkeypatch.setattr(_mounts, "mounts", lambda mount=mount: iter([mount]))
        with open_made(path) as backend:
            if refused:
                with pytest.raises(RefusedDeviceError, match=kind) as caught:
                    backend.lock()
                assert caught.value.reason == "local_lock"
            else:
                backend.lock()
        with open_made(path, force=frozenset({"local_lock"})) as backend:
            backend.lock()


def test_claims(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert all(file.claims(str(tmp_path / name)) for name in ("file", "absent", "dangling"))
    assert not file.claims(str(tmp_path))
    (claim,) = file.siltstone_backends()
    assert claim.scheme == "file"
    assert Path(file.__file__).stem == claim.scheme
