"""Reads past the page cache, and what they leave in it."""

from __future__ import annotations

import errno
import mmap
import os

import pytest
from real_media import loop_over, make_file, mounted, run

MIB = 1 << 20


def is_cached(path, offset, length=4096):
    with path.open("rb") as opened:
        try:
            return os.preadv(opened.fileno(), [bytearray(length)], offset, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False
        except OSError as error:
            pytest.skip(f"the file system does not tell what is cached: {error}")


def test_a_fresh_read_leaves_in_the_cache_what_the_medium_has(tmp_path):
    """What is dropped goes in pieces of megabytes, with what others read there: hash stores beside a journal."""
    path = tmp_path / "volume"
    with make_file(path) as backend:
        backend.write(0, b"data" * 4096)
        backend.flush()
        assert backend.read(0, 16384) == b"data" * 4096
        assert is_cached(path, 0)
        assert backend.read(5000, 1000, fresh=True) == (b"data" * 4096)[5000:6000]
        assert is_cached(path, 4096)


def test_a_fresh_read_where_direct_transfers_are_refused(tmp_path, monkeypatch):
    real = os.open

    def without_direct(path, flags, *arguments, **options):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *arguments, **options)

    with make_file(tmp_path / "volume") as backend:
        backend.write(0, b"data" * 1024)
        backend.flush()
        monkeypatch.setattr("siltstone_plugins._posix.os.open", without_direct)
        assert backend.read(1, 1000, fresh=True) == (b"data" * 1024)[1:1001]


def test_a_fresh_read_drops_a_part_of_a_page_that_the_medium_lost(tmp_path):
    """The cache serves blocks of a page of which it does not have all, and says that it has no such page."""
    image, size = tmp_path / "image", 64 * MIB
    with image.open("wb") as file:
        file.truncate(size)
    with loop_over(image) as device:
        run("mkfs.ext4", "-q", "-b", 1024, device)
        with mounted(device, tmp_path / "mounted") as folder:
            path = folder / "volume"
            with make_file(path) as backend:
                backend.write(0, b"\1" * MIB)
                backend.flush()
                os.fsync(backend._descriptor)
                os.posix_fadvise(backend._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                backend.write(65536, b"\2" * 1024)
                backend.flush()
                # As where the medium lost that write: its old bytes are there again, which no cache knows.
                first = next(
                    line for line in run("filefrag", "-v", "-b1", path).splitlines() if " 0:" in line
                )
                at = int(first.split(":")[2].split("..")[0]) + 65536
                old = mmap.mmap(-1, 1024)
                old[:] = b"\1" * 1024
                descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
                os.pwrite(descriptor, old, at)
                os.close(descriptor)
                assert backend.read(65536, 1024, fresh=True) == b"\1" * 1024
                assert backend.read(65536, 1024) == b"\1" * 1024
                view = backend.map(65536, 4096)
                assert view[:1024] == b"\1" * 1024
                view.release()
