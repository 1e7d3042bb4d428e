"""The backend for memory: what its names mean, and how much it holds."""

from __future__ import annotations

import os

import pytest

from siltstone.errors import (
    AlreadyExistsError,
    ConfigError,
    DiskFullError,
    LockedError,
    MediumError,
    NotFoundError,
)
from siltstone.plugin import BackendOptions
from siltstone_plugins import memory
from siltstone_plugins.memory import open_memory


@pytest.fixture
def name():
    yield "named"
    memory.forget("named")


def open_new(name, capacity=1 << 20):
    return open_memory(name, BackendOptions(create=True, extra={"capacity": capacity}))


def test_without_a_name_each_is_its_own():
    with open_new("") as first, open_new("") as second:
        for backend in (first, second):
            backend.lock()
            backend.grow(4096)
            backend.publish()
        first.write(0, b"first")
        assert second.read(0, 5) == bytes(5)


def test_a_name_is_kept_and_forgotten(name):
    with open_new(name) as backend:
        backend.lock()
        backend.grow(8192)
        backend.write(4096, b"kept")
        backend.publish()
    with open_memory(name, BackendOptions()) as backend:
        backend.lock()
        assert backend.size == 8192
        assert backend.read(4096, 4) == b"kept"
    with pytest.raises(AlreadyExistsError):
        open_memory(name, BackendOptions(create=True, exclusive=True))
    memory.forget(name)
    with pytest.raises(NotFoundError):
        open_memory(name, BackendOptions())


def test_of_two_that_make_a_name_one_wins(name):
    with open_new(name) as first, open_new(name) as second:
        second.publish()
        with pytest.raises(AlreadyExistsError):
            first.publish()


def test_a_lock_names_this_process(name):
    with open_new(name) as backend:
        backend.lock()
        backend.publish()
        with open_memory(name, BackendOptions()) as other, pytest.raises(LockedError) as caught:
            other.lock()
        assert f"process {os.getpid()} " in caught.value.holder


def test_the_capacity_is_the_end(name):
    with open_new(name, capacity=65536) as backend:
        backend.lock()
        backend.grow(65536)
        with pytest.raises(DiskFullError) as caught:
            backend.grow(65537)
        assert caught.value.needed == 1
        assert backend.size == 65536
        with pytest.raises(MediumError):
            backend.write(65536, b"x")


@pytest.mark.parametrize("capacity", [0, -1, "1G", True, 1 << 60, 4096.0])
def test_the_capacity_is_checked(capacity):
    with pytest.raises(ConfigError) as caught:
        open_new("", capacity)
    assert caught.value.key == "capacity"


def test_memory_is_taken_as_it_is_written():
    def resident():
        with open("/proc/self/statm") as statm:  # noqa: PTH123
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with open_new("", capacity=1 << 30) as backend:
        backend.lock()
        before = resident()
        backend.grow(1 << 30)
        backend.write((1 << 30) - 4096, bytes(4096))
        assert resident() - before < 1 << 28
