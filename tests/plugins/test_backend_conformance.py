"""The backends that come with Siltstone, each put through the suite that it ships for other people's."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import pytest

from siltstone.plugin import BackendOptions
from siltstone.testing.backend import BackendConformance
from siltstone_plugins import memory
from siltstone_plugins.block_device import open_device
from siltstone_plugins.file import open_file
from siltstone_plugins.memory import open_memory

SHARED_MEMORY = Path("/dev/shm")


class TestFile(BackendConformance):
    @pytest.fixture(autouse=True)
    def target(self, tmp_path):
        self.path = tmp_path / "volume"

    def open(self, *, read_only=False, create=False):
        return open_file(str(self.path), BackendOptions(read_only=read_only, create=create))


class TestFileThatGivesSpaceBack(TestFile):
    def open(self, *, read_only=False, create=False):
        extra = {"discard": "punch"}
        return open_file(str(self.path), BackendOptions(read_only=read_only, create=create, extra=extra))


class TestFileOnTmpfs(TestFile):
    @pytest.fixture(autouse=True)
    def target(self):
        if not SHARED_MEMORY.is_dir():
            pytest.skip("no /dev/shm")
        folder = Path(tempfile.mkdtemp(dir=SHARED_MEMORY))
        self.path = folder / "volume"
        yield
        shutil.rmtree(folder)


class TestFileOfNoNamedTemporary(TestFile):
    """A file system without unnamed files."""

    @pytest.fixture(autouse=True)
    def without_unnamed(self, monkeypatch):
        # Without this flag the call opens a folder for writing, which fails as it does on an old kernel.
        monkeypatch.setattr("siltstone_plugins._creation.os.O_TMPFILE", 0)


class TestMemory(BackendConformance):
    _names = itertools.count()

    @pytest.fixture(autouse=True)
    def target(self):
        self.name = f"conformance-{next(self._names)}"
        yield
        memory.forget(self.name)

    def open(self, *, read_only=False, create=False):
        return open_memory(self.name, BackendOptions(read_only=read_only, create=create))


class TestPrivateMemory(BackendConformance):
    reopens = False
    creates = False

    def open(self, *, read_only=False, create=False):
        return open_memory("", BackendOptions(read_only=read_only, create=create))


class DeviceConformance(BackendConformance):
    creates = False
    direct = True
    device: str

    def open(self, *, read_only=False, create=False):
        extra = {"direct": self.direct}
        # Random bytes that an earlier step left are no reason to refuse here.
        force = frozenset({"data"})
        return open_device(
            self.device, BackendOptions(read_only=read_only, create=create, extra=extra, force=force)
        )


@pytest.mark.root
@pytest.mark.parametrize("sector", [512, 4096], scope="class")
class TestLoopDevice(DeviceConformance):
    @pytest.fixture(autouse=True)
    def target(self, make_loop, sector):
        self.device = make_loop(sector=sector)

    def test_its_alignment_is_its_sector(self, sector):
        with self.opened() as backend:
            assert backend.alignment == sector


class TestLoopDeviceThroughTheCache(TestLoopDevice):
    direct = False


@pytest.mark.root
class TestZram(DeviceConformance):
    @pytest.fixture(autouse=True)
    def target(self, zram):
        self.device = zram


class TestZramThroughTheCache(TestZram):
    direct = False
