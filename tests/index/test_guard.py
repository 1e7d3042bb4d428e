"""A mapped page that cannot be read ends in an error, not in the death of the process."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

import siltstone
from siltstone.errors import MediumError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = 50_000


@pytest.fixture
def cut_short(tmp_path: Path) -> Iterator[tuple[siltstone.Store, np.ndarray]]:
    """An open store whose file was cut down to its superblock behind its back."""
    target = tmp_path / "store.silt"
    hashes = np.random.default_rng(1).integers(0, 256, (COUNT, 32), np.uint8)
    store = siltstone.open(target, shards=2)
    store.put_many(hashes, np.arange(COUNT), np.arange(COUNT))
    store.flush()
    os.truncate(target, 1024 * 1024)
    yield store, hashes
    store._core.abandon()


def test_lookups_say_that_the_medium_fails(cut_short: tuple[siltstone.Store, np.ndarray]) -> None:
    store, hashes = cut_short
    with pytest.raises(MediumError, match="could not be read"):
        store.get_many(hashes)
    with pytest.raises(MediumError, match="could not be read"):
        for row in hashes:
            store.get(row.tobytes())
    with pytest.raises(MediumError, match="could not be read"):
        store.delete_many(hashes)
    misses = np.zeros((1000, 32), np.uint8)
    assert not store.get_many(misses)[0].any()


def test_it_also_works_beside_faulthandler(cut_short: tuple[siltstone.Store, np.ndarray]) -> None:
    store, hashes = cut_short
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable()
    try:
        with pytest.raises(MediumError):
            siltstone.open("memory:", shards=1).close()
            store.get_many(hashes)
    finally:
        if not was_enabled:
            faulthandler.disable()


def test_a_bus_error_elsewhere_still_ends_the_process(tmp_path: Path) -> None:
    program = f"""
import mmap, os, siltstone
siltstone.open("memory:", shards=1).close()
descriptor = os.open({str(tmp_path / "file")!r}, os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 4096)
view = mmap.mmap(descriptor, 4096)
os.ftruncate(descriptor, 0)
view[0]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGBUS


def test_faulthandler_enabled_between_two_openings_reports_a_bus_error_once(tmp_path: Path) -> None:
    """Each of the two handlers has the other one as its predecessor: they must not pass the signal round."""
    program = f"""
import faulthandler, mmap, os, resource, siltstone
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
first = siltstone.open("memory:", shards=1)
faulthandler.enable()
second = siltstone.open("memory:", shards=1)
descriptor = os.open({str(tmp_path / "file")!r}, os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 4096)
view = mmap.mmap(descriptor, 4096)
os.ftruncate(descriptor, 0)
view[0]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGBUS
    assert done.stderr.count(b"Fatal Python error: Bus error") == 1
