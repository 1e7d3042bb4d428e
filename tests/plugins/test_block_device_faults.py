"""The backend for raw devices when the medium fails, fills up, shrinks, or is told to forget."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from real_media import MIB, run

from siltstone.errors import DiskFullError, MediumError
from siltstone.plugin import BackendOptions
from siltstone_plugins import _sysfs
from siltstone_plugins.block_device import open_device

pytestmark = pytest.mark.root


def open_locked(device, **extra):
    backend = open_device(device, BackendOptions(create=True, extra=extra))
    backend.lock()
    return backend


def image_of(device):
    return Path(run("losetup", "--noheadings", "--output", "BACK-FILE", device).strip())


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_kernel_says_what_the_device_is(make_loop, sector):
    with open_locked(make_loop(sector=sector)) as backend:
        queue = Path(f"/sys/block/{Path(backend.url).name}/queue")
        assert backend.size == 8 * MIB
        assert backend.alignment == int((queue / "logical_block_size").read_text()) == sector
        assert backend.erase_block == int((queue / "discard_granularity").read_text())


@pytest.mark.parametrize("direct", [True, False])
def test_a_device_that_shrinks_is_noticed(make_loop, direct):
    device = make_loop()
    with open_locked(device, direct=direct) as backend:
        os.truncate(image_of(device), 4 * MIB)
        run("losetup", "--set-capacity", device)
        with pytest.raises(MediumError):
            backend.read(4 * MIB, 4096)
        with pytest.raises(MediumError, match="shrunk") as caught:
            backend.write(4 * MIB, bytes(4096))
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(MediumError):
            backend.read(4 * MIB - 4096, 8192)
        backend.write(0, b"\1" * 4096)
        assert backend.read(0, 4096) == b"\1" * 4096


@pytest.mark.parametrize("direct", [True, False])
def test_an_image_cut_under_the_device_is_noticed(make_loop, direct):
    device = make_loop()
    with open_locked(device, direct=direct) as backend:
        os.truncate(image_of(device), 4 * MIB)
        with pytest.raises(MediumError) as caught:
            backend.read(6 * MIB, 4096, fresh=True)
        assert caught.value.errno == errno.EIO
        assert "6291456" in str(caught.value)


def test_a_device_does_not_grow(make_loop):
    with open_locked(make_loop()) as backend:
        backend.grow(8 * MIB)
        with pytest.raises(DiskFullError) as caught:
            backend.grow(8 * MIB + 4096)
        assert caught.value.needed == 4096


# ---- TRIM


def test_space_given_up_is_trimmed(make_loop):
    device = make_loop()
    with open_locked(device) as backend:
        if backend.erase_block == 0:
            pytest.skip("loop devices here take no discard")
        backend.write(0, os.urandom(8 * MIB))
        backend.flush()
        full = image_of(device).stat().st_blocks
        backend.discard(MIB, 4 * MIB)
        backend.flush()
        assert image_of(device).stat().st_blocks <= full - 4 * MIB // 512


def test_space_given_up_is_kept_if_asked_for(make_loop):
    device = make_loop()
    with open_locked(device, discard="keep") as backend:
        data = os.urandom(8 * MIB)
        backend.write(0, data)
        backend.discard(0, 8 * MIB)
        assert backend.read(0, 8 * MIB, fresh=True) == data


def test_a_device_that_takes_no_trim_is_asked_once(make_loop, monkeypatch):
    calls = []

    def refuse(descriptor, offset, length):
        calls.append((offset, length))
        raise OSError(errno.EOPNOTSUPP, "no")

    with open_locked(make_loop()) as backend:
        if backend.erase_block == 0:
            pytest.skip("loop devices here take no discard")
        monkeypatch.setattr(_sysfs, "discard", refuse)
        backend.discard(0, MIB)
        backend.discard(MIB, MIB)
        assert calls == [(0, MIB)]


def test_a_trim_never_reaches_beyond_its_range(make_loop, monkeypatch):
    calls = []
    monkeypatch.setattr(_sysfs, "discard", lambda descriptor, offset, length: calls.append((offset, length)))
    with open_locked(make_loop()) as backend:
        unit = backend.erase_block
        if unit <= 512:
            pytest.skip("the unit of a discard is a sector here")
        backend.discard(512, unit - 512)
        backend.discard(unit - 512, 1024)
        assert calls == []
        backend.discard(512, 3 * unit)
        backend.discard(unit, 2 * unit)
        assert calls == [(unit, 2 * unit)] * 2


# ---- a medium that loses writes


@pytest.fixture
def thin(small_disk, make_loop):
    """A loop device of 8 MiB over a disk of 1 MiB: a flush that needs more space fails, once."""
    return make_loop(folder=small_disk, direct=False)


def test_a_flush_that_fails_once_fails_for_good(thin):
    with open_locked(thin, direct=False) as backend:
        backend.write(0, b"\1" * 4096)
        backend.flush()
        for offset in range(2 * MIB, 6 * MIB, MIB):
            backend.write(offset, b"\2" * MIB)
        with pytest.raises(MediumError) as caught:
            backend.flush()
        assert caught.value.operation == "flush"
        # The kernel has said it once, and would now report success.
        os.fdatasync(backend._descriptor)
        with pytest.raises(MediumError, match="before"):
            backend.flush()
        assert backend.read(0, 4096, fresh=True) == b"\1" * 4096


def lose_writes(backend):
    """Write more than the medium takes; the offset of a page that the cache has and the medium has not."""
    for offset in range(2 * MIB, 6 * MIB, MIB):
        backend.write(offset, b"\2" * MIB)
    with pytest.raises(MediumError):
        backend.flush()
    with image_of(backend.url).open("rb") as image:
        for offset in range(2 * MIB, 6 * MIB, 4096):
            image.seek(offset)
            if image.read(4096) == bytes(4096) and backend.read(offset, 4096) == b"\2" * 4096:
                return offset
    pytest.skip("the cache kept nothing that the medium lost")


def test_a_fresh_read_shows_what_the_medium_has_and_ends_the_lie(thin):
    with open_locked(thin, direct=False) as backend:
        offset = lose_writes(backend)
        assert backend.read(offset, 4096, fresh=True) == bytes(4096)
        assert backend.read(offset, 4096) == bytes(4096)
        view = backend.map(offset, 4096)
        assert view == bytes(4096)
        view.release()


def test_a_fresh_read_does_not_hide_that_the_cache_keeps_the_lie(thin):
    with open_locked(thin, direct=False) as backend:
        view = backend.map(0, 8 * MIB)
        offset = lose_writes(backend)
        assert view[offset] == 2
        with pytest.raises(MediumError, match="page cache"):
            backend.read(offset, 4096, fresh=True)
        view.release()


def test_a_direct_write_to_a_medium_without_space_fails_at_once(thin):
    with open_locked(thin) as backend:
        with pytest.raises((MediumError, DiskFullError)) as caught:
            for offset in range(2 * MIB, 6 * MIB, MIB):
                backend.write(offset, b"\2" * MIB)
                backend.flush()
        assert caught.value.errno in (errno.EIO, errno.ENOSPC)


@pytest.mark.parametrize("direct", [True, False])
def test_zram_without_memory_fails(zram, direct):
    Path(f"/sys/block/{Path(zram).name}/mem_limit").write_text("1M")
    with open_locked(zram, direct=direct) as backend:
        with pytest.raises(MediumError) as caught:
            for offset in range(0, 8 * MIB, MIB):
                backend.write(offset, os.urandom(MIB))
            backend.flush()
        assert caught.value.errno in (errno.EIO, errno.ENOMEM)
