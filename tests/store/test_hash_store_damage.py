"""Hash stores of a closed store: checked, exported, and never believed where they are damaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from store_records import hashes

import siltstone
from siltstone import DamageError
from siltstone.format.constants import TYPE_DELETE, TYPE_END, TYPE_NONE

COUNT = 5_000
PAGE = 4096


@pytest.fixture
def store(path):
    """A store of two shards: hash stores, of whose keys some were put again and some deleted in journals since."""
    names, values = hashes(range(COUNT)), np.arange(COUNT, dtype=np.uint64)
    with siltstone.open(path, shards=2, erase_block=64 * 1024, workers=0) as opened:
        opened.put_many(names, values, values)
        opened.incarnate()
        opened.put_many(names[:100], values[:100] + 7, values[:100])
        opened.delete_many(names[100:200])
    return path


def hash_stores(path):
    with siltstone.open(path, read_only=True, workers=0) as opened:
        return [extent for extent in opened.info().extents if extent.kind == "hash_store"]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def walk(image):
    """The entries of a plain image as (type, payload), as the RFC walks."""
    at = 0
    while image[at + 1] != TYPE_NONE:
        if image[at + 1] != TYPE_END:
            yield image[at + 1], image[at + 2 : at + image[at]]
        at += image[at]


def test_a_whole_store_is_found_whole(store):
    report = siltstone.verify(store)
    assert (report.ok, report.hash_stores, report.problems) == (True, 2, ())
    assert report.entries == COUNT + 200


def test_what_is_exported_says_what_the_store_says(store, tmp_path):
    images = siltstone.export(store, tmp_path / "images")
    assert sum("hash-store" in image.path.name for image in images) == len(hash_stores(store))
    held: dict[bytes, bytes] = {}
    for image in images:
        for kind, payload in walk(image.path.read_bytes()):
            if kind == TYPE_DELETE:
                held.pop(payload[1:], None)
            else:
                held[payload[:32]] = payload[32:40]
    with siltstone.open(store, workers=0) as opened:
        assert len(held) == COUNT - 100
        names = np.frombuffer(b"".join(held), np.uint8).reshape(-1, 32)
        found, physical, _logical = opened.get_many(names)
        assert found.all()
        assert physical.astype(">u8").tobytes() == b"".join(held.values())


def test_a_damaged_record_page_is_reported_and_never_served(store):
    extent = hash_stores(store)[0]
    flip(store, extent.offset + 3 * PAGE + 100)
    report = siltstone.verify(store)
    assert not report.ok
    (problem,) = report.problems
    assert (problem.journal, problem.cluster, problem.offset) == (extent.id, 3, extent.offset + 3 * PAGE)
    with siltstone.open(store, workers=0) as opened:
        damaged = 0
        for number in range(200, COUNT):
            try:
                record = opened.get(hashes([number])[0].tobytes())
            except DamageError as error:
                damaged += 1
                assert error.offset == extent.offset + 3 * PAGE
            else:
                assert record.physical_sect == number
        assert 0 < damaged <= 80
        with pytest.raises(DamageError, match=f"hash store {extent.id}, cluster 3, at byte"):
            opened.get_many(hashes(range(COUNT)))
        # Nothing that it is made into takes its place in silence.
        with pytest.raises(DamageError):
            opened.incarnate()
            opened.incarnate()


@pytest.mark.parametrize("page", [0, -1])
def test_a_damaged_header_or_filter_refuses_to_open(store, page):
    extent = hash_stores(store)[0]
    with siltstone.open(store, read_only=True, workers=0) as opened:
        clusters = opened._core.shards._stores[extent.shard].index.older.parts[0].clusters
    flip(store, extent.offset + page % clusters * PAGE + 40)
    with pytest.raises(DamageError, match=f"hash store {extent.id}"):
        siltstone.open(store, workers=0)
    assert not siltstone.verify(store).ok


@pytest.mark.parametrize("wrong", ["entries", "tombstones", "first"])
def test_a_superblock_that_says_something_else_of_a_part_is_reported(store, wrong):
    extent = hash_stores(store)[0]
    with siltstone.open(store, workers=0) as opened:
        volume = opened._core.volume
        listed = volume.extent(extent.id)
        part = listed.part
        said = {
            "entries": part._replace(entries=part.entries - 1),
            "tombstones": part._replace(tombstones=part.tombstones + 1),
            # None of them counts then.
            "first": part._replace(first=(1 << 64) - 1),
        }[wrong]
        volume.publish(lambda superblock: superblock.with_extents(replace(listed, part=said)))
    report = siltstone.verify(store)
    assert not report.ok
    (problem,) = report.problems
    assert (problem.journal, problem.offset) == (extent.id, extent.offset)
    assert f"superblock say {part.entries} with 0, {said.entries} with {said.tombstones}" in problem.message
