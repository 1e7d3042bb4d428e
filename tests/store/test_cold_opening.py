"""What an opening reads of hash stores that no cache has: headers and filters, and none of the records."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest
from store_records import assert_holds, digest, rows

import siltstone
from siltstone.format.superblock import CLOSED, KIND_HASH_STORE
from siltstone.hash_store.extent import HEADER_SIZE, HashStoreHeader

CLUSTER = 4096
RECORDS = 60_000
#: what a file system or a disk reads beside what it was asked for
BESIDE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def cached(path):
    """For each cluster of a file, whether the page cache has it."""
    size = path.stat().st_size
    found = np.zeros(-(-size // CLUSTER), np.uint8)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        # Of a map that this user may write the kernel tells what is cached.
        assert (
            _libc.mincore(
                ctypes.c_void_p(start), ctypes.c_size_t(size), found.ctypes.data_as(ctypes.c_void_p)
            )
            == 0
        )
    return found & 1 != 0


def forget(path):
    """Drop what the page cache has of a file; skip where it does not."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(path).any():
        pytest.skip("the file system keeps files in the page cache, or has no other place for them")


def header_of(path, extent):
    with path.open("rb") as file:
        file.seek(extent.offset)
        return HashStoreHeader.parse(file.read(HEADER_SIZE), extent.length // CLUSTER)


def test_an_opening_reads_of_hash_stores_all_but_their_records(tmp_path):
    path = tmp_path / "store.silt"
    with siltstone.open(path, workers=0, shards=1) as store:
        store.put_many(*rows(range(RECORDS)))
        store.incarnate()
        parts = [
            extent
            for extent in store._core.volume.superblock.extents
            if extent.kind == KIND_HASH_STORE and extent.state == CLOSED
        ]
    assert parts
    forget(path)
    with siltstone.open(path, workers=0) as store:
        assert store.get(digest(RECORDS)) is None
        found = cached(path)
        assert_holds(store, range(0, RECORDS, 100))
    records = []
    for extent in parts:
        header = header_of(path, extent)
        here = found[extent.offset // CLUSTER :][: header.clusters]
        assert here[0]
        assert here[header.first_filter_page :].all()
        records.extend(here[1 : header.first_filter_page])
    assert len(records) > 100 * BESIDE
    assert sum(records) <= BESIDE
