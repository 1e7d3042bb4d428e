"""A log store in shared memory: what the writer puts is found through maps for reading, mirrors included."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from siltstone.format.superblock import EMPTY, KIND_JOURNAL, Extent
from siltstone.index.layout import JOURNAL_BYTES_MAX, JOURNALS_MAX
from siltstone.index.types import KeyTypes
from siltstone.index.view import IndexView
from siltstone.log_store.log_store import LogStore
from siltstone.log_store.memory import IndexSize
from siltstone.log_store.mirror import MirrorSpace
from siltstone.lookup.reader import Reader
from siltstone.plugin.types import BackendOptions
from siltstone_plugins.memory import MemoryBackend, open_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = bytes(range(16))
TYPES = KeyTypes({0x02: (0, 32)})
SIZE = IndexSize(segments=1, window_bytes=1 << 16, records=1000)
BLOCK = 1 << 16


@pytest.fixture
def descriptors() -> Iterator[tuple[int, int]]:
    """The index and the mirrors of one shard."""
    made = SIZE.share(), MirrorSpace.share(1)
    yield made
    for descriptor in made:
        os.close(descriptor)


def extent(number: int) -> Extent:
    return Extent(
        id=number, offset=number * BLOCK, length=BLOCK, kind=KIND_JOURNAL, shard=0, state=EMPTY, generation=1
    )


def entries(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 32) keys, and packed entries whose other 16 bytes are the first of the key."""
    keys = np.random.default_rng(first).integers(0, 256, (count, 32), np.uint8)
    rows = np.empty((count, 50), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2:34], rows[:, 34:] = 50, 0x02, keys, keys[:, :16]
    return keys, rows


def test_lookups_from_outside_see_mirrors_come_and_go(descriptors, monkeypatch):
    monkeypatch.setattr(MemoryBackend, "map", lambda *_range: None)
    index, region = descriptors
    backend = open_memory("", BackendOptions(create=True))
    backend.grow(1 << 20)
    store = LogStore(
        backend,
        UUID,
        TYPES,
        SIZE,
        memory=SIZE.map_shared(index, writable=True),
        mirrors=MirrorSpace(region),
    )
    space = MirrorSpace(region)

    def map_mirror(number: int, _offset: int, length: int) -> memoryview:
        return memoryview(space.map(number, length))

    memory = SIZE.map_shared(index, writable=False)
    reader = Reader([IndexView(memory, TYPES, UUID, SIZE.segments, SIZE.window_bytes, map_mirror)])
    assert os.fstat(region).st_blocks == 0
    for number in (1, 2, 3):
        one = extent(number)
        keys, rows = entries(number, 50)
        target = store.add(one)
        assert target is not backend
        assert target is store.target(one)
        target.write(one.offset + 8192, rows.tobytes())
        assert backend.read(one.offset + 8192, rows.size) == rows.tobytes()
        store.apply(one, rows.ravel(), np.arange(50, dtype=np.uint64) * 50 + 8192)
        found, payloads = reader.get_many(0x02, keys, 48)
        assert found.all()
        assert (payloads == rows[:, 2:]).all()
        gone = np.empty((50, 35), np.uint8)
        gone[:, 0], gone[:, 1], gone[:, 2], gone[:, 3:] = 35, 0x04, 0x02, keys
        store.apply(one, gone.ravel(), np.zeros(50, np.uint64))
        assert not reader.get_many(0x02, keys, 48)[0].any()
        assert os.fstat(region).st_blocks > 0
        # Its number, and with it its region, are the next one's.
        store.remove(one)
        assert os.fstat(region).st_blocks == 0
        assert store.target(one) is backend


def test_shared_memory_keeps_its_size_and_is_not_inherited(descriptors):
    for descriptor in descriptors:
        size = os.fstat(descriptor).st_size
        for other in (size - 4096, size + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, other)
        assert not os.get_inheritable(descriptor)
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
        assert os.fstat(descriptor).st_blocks == 0


def test_a_map_for_reading_cannot_be_written(descriptors):
    index, region = descriptors
    written = memoryview(SIZE.map_shared(index, writable=True))
    read = memoryview(SIZE.map_shared(index, writable=False))
    written[5] = 7
    assert read[5] == 7
    assert read.readonly
    assert memoryview(MirrorSpace(region).map(0, 4096)).readonly


def test_the_regions_of_mirrors_do_not_touch(descriptors):
    _index, region = descriptors
    space = MirrorSpace(region)
    first = memoryview(space.map(0, JOURNAL_BYTES_MAX, writable=True))
    second = memoryview(space.map(1, 8192, writable=True))
    first[-1], second[0] = 1, 2
    assert (first[-1], second[0], first[0]) == (1, 2, 0)
    for number, length in ((-1, 4096), (JOURNALS_MAX, 4096), (0, 0), (0, JOURNAL_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match="mirror"):
            space.map(number, length)
