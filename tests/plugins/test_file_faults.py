"""The backend for files when the medium fails, fills up or changes under it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os

import pytest
from interrupts import Anywhere
from real_media import make_file, mounted, need_root, open_made, output_of, program, run

from siltstone.errors import (
    DiskFullError,
    MediumError,
    ReadOnlyError,
)

MIB = 1 << 20


# ---- the medium under it


def test_a_file_that_is_cut_is_noticed(tmp_path):
    path = tmp_path / "volume"
    with make_file(path) as backend:
        os.truncate(path, 8192)
        assert backend.read(0, 4096) == bytes(4096)
        for fresh in (False, True):
            with pytest.raises(MediumError, match="shorter") as caught:
                backend.read(4096, 8192, fresh=fresh)
            assert caught.value.offset == 4096
        with pytest.raises(MediumError, match="8192"):
            backend.write(0, bytes(4096))
        with pytest.raises(MediumError, match="8192"):
            backend.flush()
    assert path.stat().st_size == 8192


def test_a_file_that_is_deleted_is_not_flushed_into_nothing(tmp_path):
    path = tmp_path / "volume"
    with make_file(path) as backend:
        backend.flush()
        path.unlink()
        with pytest.raises(MediumError, match="deleted"):
            backend.flush()


@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_what_a_file_grew_by_can_be_written_when_the_disk_is_full(make_loop, tmp_path, system):
    device = make_loop(512 * MIB if system == "xfs" else 64 * MIB)
    run(f"mkfs.{system}", "-q", device)
    with mounted(device, tmp_path / "disk") as disk, make_file(disk / "volume", MIB) as backend:
        backend.grow(32 * MIB)
        assert (disk / "volume").stat().st_blocks * 512 >= 32 * MIB
        fill(disk / "blocker")
        # Every other block, so that the file system's tables need as many entries as there can be.
        for step in (0, 4096):
            for offset in range(MIB + step, 32 * MIB, 8192):
                backend.write(offset, os.urandom(4096))
                if offset % (256 * 1024) == 0:
                    backend.flush()
        backend.flush()
        with pytest.raises(DiskFullError):
            backend.grow(64 * MIB)
        backend.flush()


def fill(path):
    """Write to a file until nothing fits any more."""
    with path.open("wb", buffering=0) as blocker:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    blocker.write(bytes(size))
        with contextlib.suppress(OSError):
            os.fsync(blocker.fileno())
    # XFS keeps a handful of blocks to itself.
    assert os.statvfs(path).f_bavail < 16


def test_space_given_up_is_kept_unless_asked_for(tmp_path):
    for mode, gone in (("keep", False), ("punch", True)):
        path = tmp_path / mode
        with make_file(path, 4 * MIB, discard=mode) as backend:
            before = path.stat().st_blocks
            backend.discard(MIB, 2 * MIB)
            assert (path.stat().st_blocks <= before - 2 * MIB // 512) == gone
            assert path.stat().st_size == 4 * MIB


# ---- no space


def test_a_full_disk_changes_nothing_and_passes(small_disk):
    blocker = small_disk / "blocker"
    with make_file(small_disk / "volume", 512 * 1024) as backend:
        backend.write(0, b"kept")
        with pytest.raises(DiskFullError) as caught:
            backend.grow(2 * MIB)
        assert caught.value.needed == 2 * MIB - 512 * 1024
        blocker.write_bytes(bytes(300 * 1024))
        with pytest.raises(DiskFullError):
            backend.grow(900 * 1024)
        assert backend.size == (small_disk / "volume").stat().st_size == 512 * 1024
        assert backend.read(0, 4) == b"kept"
        backend.write(0, b"more")
        backend.flush()
        blocker.unlink()
        backend.grow(900 * 1024)
        assert backend.size == 900 * 1024


def test_space_that_runs_out_in_the_middle_is_given_back(small_disk, monkeypatch):
    # As on a disk that somebody else fills between the look at it and the allocation.
    class Roomy:
        f_blocks, f_bfree, f_frsize = 1 << 40, 1 << 40, 4096

    monkeypatch.setattr("siltstone_plugins.file.os.fstatvfs", lambda descriptor: Roomy)
    with make_file(small_disk / "volume", 512 * 1024) as backend:
        with pytest.raises(DiskFullError):
            backend.grow(2 * MIB)
        assert backend.size == (small_disk / "volume").stat().st_size == 512 * 1024
        assert os.statvfs(small_disk).f_bfree > 0
        backend.flush()


def test_space_that_was_allocated_in_vain_is_given_back(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    with make_file(path) as backend:
        before = path.stat().st_blocks
        with monkeypatch.context() as patch:
            # As on a file system that cannot allocate, where zeros are written.
            patch.setattr("siltstone_plugins.file.os.posix_fallocate", cannot_allocate)
            patch.setattr("siltstone_plugins.file.os.pwrite", short_write([MIB, -errno.ENOSPC]))
            with pytest.raises(DiskFullError):
                backend.grow(4 * MIB)
        assert backend.size == path.stat().st_size == MIB
        assert path.stat().st_blocks == before
        backend.grow(4 * MIB)
        assert backend.size == path.stat().st_size == 4 * MIB


def cannot_allocate(*_arguments):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_where_a_file_system_cannot_allocate_zeros_are_written(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    monkeypatch.setattr("siltstone_plugins.file.os.posix_fallocate", cannot_allocate)
    with make_file(path) as backend:
        backend.grow(4 * MIB)
        assert backend.size == path.stat().st_size == 4 * MIB
        assert path.stat().st_blocks * 512 >= 4 * MIB


#: a program with a volume of `size` bytes, whose files must not become larger than 3 MiB
LIMITED = """
import resource, sys
from siltstone.errors import DiskFullError
from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file
backend = open_file(sys.argv[1], BackendOptions(create=True))
backend.lock()
backend.grow({size})
backend.publish()
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
"""


def test_a_limit_on_file_size_is_a_full_disk(tmp_path):
    source = (
        LIMITED.format(size=MIB)
        + """
try:
    backend.grow(4 << 20)
except DiskFullError as error:
    print(error.fields["errno"], backend.size)
backend.write(0, b"x")
backend.flush()
backend.grow(2 << 20)
print(backend.size)
"""
    )
    assert output_of(source, tmp_path / "volume").split() == [str(errno.EFBIG), str(MIB), str(2 * MIB)]
    assert (tmp_path / "volume").stat().st_size == 2 * MIB


def test_of_several_writes_the_one_that_the_system_refuses_says_so_and_the_others_are_made(tmp_path):
    source = (
        LIMITED.format(size=4 * MIB)
        + """
errors = backend.write_each([
    (0, b"a" * 4096), ((3 << 20) - 512, b"b" * 4096), (3 << 20, b"c" * 4096), (8192, b"d" * 4096),
])
for place, error in errors.items():
    print(place, type(error).__name__, error.fields["errno"], error.fields["offset"], error.fields["written"])
"""
    )
    path = tmp_path / "volume"
    assert output_of(source, path).splitlines() == [
        f"1 DiskFullError {errno.EFBIG} {3 * MIB - 512} 512",
        f"2 DiskFullError {errno.EFBIG} {3 * MIB} 0",
    ]
    data = path.read_bytes()
    assert (data[:4096], data[8192:12288]) == (b"a" * 4096, b"d" * 4096)


def test_a_read_only_file_system_says_so(tmp_path):
    need_root()
    make_file(tmp_path / "volume").close()
    with mounted(tmp_path, tmp_path.parent / f"{tmp_path.name}-view", "--bind", "-o", "ro") as view:
        with pytest.raises(ReadOnlyError, match="Read-only"):
            open_made(view / "volume")
        with pytest.raises(ReadOnlyError):
            open_made(view / "another", create=True)
        with open_made(view / "volume", read_only=True) as backend:
            backend.lock()
            assert backend.read(0, 16, fresh=True) == bytes(16)


# ---- the system refuses


def short_write(answers, real=os.pwrite):
    """A pwrite that goes by `answers`, each a limit of bytes, an errno as a negative number, or None."""
    left = list(answers)

    def pwrite(descriptor, data, offset):
        answer = left.pop(0) if left else None
        if answer is None:
            return real(descriptor, data, offset)
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return real(descriptor, data[:answer], offset)

    return pwrite


def test_a_write_that_goes_on_in_parts_is_whole(tmp_path, monkeypatch):
    data = os.urandom(10_000)
    with make_file(tmp_path / "volume") as backend:
        monkeypatch.setattr("siltstone_plugins._posix.os.pwrite", short_write([1, 4095, 3000]))
        backend.write(100, data)
        assert backend.read(100, 10_000) == data
        assert backend.read(0, 100) == bytes(100)


@pytest.mark.parametrize(
    ("answers", "error", "code"),
    [
        ([-errno.EIO], MediumError, errno.EIO),
        ([512, -errno.EIO], MediumError, errno.EIO),
        ([-errno.ENOSPC], DiskFullError, errno.ENOSPC),
        ([512, -errno.EDQUOT], DiskFullError, errno.EDQUOT),
        ([0], MediumError, 0),
    ],
)
def test_a_write_that_fails_raises(tmp_path, monkeypatch, answers, error, code):
    with make_file(tmp_path / "volume") as backend:
        monkeypatch.setattr("siltstone_plugins._posix.os.pwrite", short_write(answers))
        with pytest.raises(error) as caught:
            backend.write(8192, bytes(4096))
        assert (caught.value.errno, caught.value.offset, caught.value.url) == (code, 8192, backend.url)
        assert "8192" in str(caught.value)


def test_a_read_that_fails_names_offset_and_errno(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with make_file(tmp_path / "volume") as backend:
        monkeypatch.setattr("siltstone_plugins._posix.os.pread", refuse)
        monkeypatch.setattr("siltstone_plugins._posix.os.preadv", refuse)
        for fresh in (False, True):
            with pytest.raises(MediumError, match="EIO") as caught:
                backend.read(4096, 512, fresh=fresh)
            assert (caught.value.errno, caught.value.offset, caught.value.operation) == (
                errno.EIO,
                4096,
                "read",
            )


def test_a_flush_that_fails_once_fails_for_good_and_for_everybody(tmp_path):
    source = """
import sys, threading
from siltstone.errors import MediumError
from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file
backend = open_file(sys.argv[1], BackendOptions())
backend.lock()
backend.write(0, b"x")
results = []
def flush():
    try:
        backend.flush()
        results.append("durable")
    except MediumError as error:
        results.append(str(error.fields["errno"]))
threads = [threading.Thread(target=flush) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
flush()
try:
    backend.grow(2 << 20)
except MediumError:
    results.append("not grown")
print(*results)
"""
    make_file(tmp_path / "volume").close()
    log = tmp_path / "log"
    wrapper = (program("strace"), "-f", "-o", str(log), "-e", "trace=fdatasync,fsync")
    wrapper += ("-e", "inject=fdatasync:error=EIO:when=1")
    printed = output_of(source, tmp_path / "volume", wrapper=wrapper)
    assert printed.split() == [str(errno.EIO)] * 9 + ["not", "grown"]
    calls = [line for line in log.read_text().splitlines() if "fdatasync(" in line or "fsync(" in line]
    assert len(calls) == 1


def test_a_commit_asks_for_no_timestamps(tmp_path):
    # A stat between two writes makes the file system journal a timestamp with the next flush.
    source = """
import sys
from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file
backend = open_file(sys.argv[1], BackendOptions())
backend.lock()
for _ in range(5):
    backend.write(0, bytes(4096))
    backend.flush()
"""
    make_file(tmp_path / "volume").close()
    log = tmp_path / "log"
    wrapper = (
        program("strace"),
        "-f",
        "-o",
        str(log),
        "-e",
        "trace=fdatasync,fstat,newfstatat,statx,pwrite64",
    )
    output_of(source, tmp_path / "volume", wrapper=wrapper)
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    syncs = [at for at, call in enumerate(calls) if call.startswith("fdatasync")]
    assert len(syncs) == 5
    between = calls[syncs[0] : syncs[-1]]
    assert not [call for call in between if call.startswith(("fstat", "newfstatat"))]
    # The link count is asked for, and it alone; the kernel may answer more than it was asked.
    assert all("STATX_NLINK|STATX_SIZE," in call for call in between if call.startswith("statx"))


def test_a_flush_without_space_is_no_harmless_kind_of_full(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with make_file(tmp_path / "volume") as backend:
        with monkeypatch.context() as patch:
            patch.setattr("siltstone_plugins._posix.os.fdatasync", refuse)
            with pytest.raises(MediumError):
                backend.flush()
        with pytest.raises(MediumError, match="before"):
            backend.flush()


# ---- interrupts


@pytest.mark.parametrize("what", ["write", "write_each", "flush"])
def test_an_interrupt_anywhere_in_a_transfer_keeps_no_lock_behind_the_close(tmp_path, what):
    calls = {
        "write": lambda backend: backend.write(4096, bytes(4096)),
        "write_each": lambda backend: backend.write_each([(0, bytes(4096)), (8192, bytes(4096))]),
        "flush": lambda backend: backend.flush(),
    }
    path = tmp_path / "volume"
    make_file(path).close()
    for place in itertools.count(1):
        with open_made(path) as backend:
            backend.lock()
            was_interrupted = Anywhere(place).while_(lambda backend=backend: calls[what](backend))
        # Nobody has it.
        with open_made(path) as backend:
            backend.lock()
        if not was_interrupted:
            break
    assert place > 2
