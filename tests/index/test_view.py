"""An index that another process writes: what it shows is seen here, and what becomes of its writer hangs no lookup."""

from __future__ import annotations

import gc
import os
import signal
import struct
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from indexed_log import CLUSTER, HASH, SECRET, TYPES, IndexedLog
from shared_log import SIZE, Writer, all_keys, versions_of

from siltstone.index.layout import layout_bytes
from siltstone.index.table import LogIndex
from siltstone.index.types import KeyTypes
from siltstone.index.view import IndexView
from siltstone.lookup.reader import Reader
from siltstone.volume.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

JOURNALS_AT, SEGMENTS_AT = 4096, 4096 + 64 * 1024 + 16 * 4096


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


def assert_versions(reader: Reader, keys: np.ndarray, version: int) -> None:
    found, payloads = reader.get_many(HASH, keys, 48)
    assert found.all()
    assert (versions_of(keys, payloads) == version).all()


# ---- what another process writes


def test_growth_new_journals_and_deletions_are_seen(writer):
    view, keys = writer.view(), all_keys()
    reader = Reader([view])
    assert not reader.get_many(HASH, keys[:100], 48)[0].any()
    before = view.bytes
    for version, start in enumerate(range(0, 18_000, 3000)):
        records, _made = writer.do("put", start, 3000, version)
        assert view.records == records == start + 3000
        assert_versions(reader, keys[start : start + 3000], version)
        assert not reader.get_many(HASH, keys[start + 3000 :], 48)[0].any()
    assert view.bytes > 10 * before
    assert len({number for number, _offset in writer.mapped}) == len(writer.mapped) > 3
    writer.do("delete", 0, 1000)
    assert not reader.get_many(HASH, keys[:1000], 48)[0].any()
    assert reader.get(HASH, keys[0]) is None
    payload = reader.get(HASH, keys[3000])
    assert versions_of(keys[3000:3001], np.frombuffer(payload, np.uint8)[None]).tolist() == [1]


def test_the_unwritten_tail_is_seen_at_once(writer):
    reader, keys = Reader([writer.view()]), all_keys()
    for number in range(300):
        writer.do("put", number, 1, number)
        payload = reader.get(HASH, keys[number])
        assert versions_of(keys[number][None], np.frombuffer(payload, np.uint8)[None]).tolist() == [number]
    for version in range(300, 310):
        writer.do("put", 0, 7, version)
        assert_versions(reader, keys[:7], version)
        writer.do("roll")
        assert_versions(reader, keys[:7], version)


def test_a_number_that_is_used_again_is_mapped_again(writer):
    view, keys = writer.view(), all_keys()
    reader = Reader([view])
    for version in range(20):
        writer.do("roll")
        writer.do("put", 0, 200, version)
        assert_versions(reader, keys[:200], version)
        writer.do("forget")
        assert_versions(reader, keys[:200], version)
    numbers = [number for number, _offset in writer.mapped]
    assert len(set(numbers)) == 2
    assert len(numbers) == len({offset for _number, offset in writer.mapped}) == 20
    assert not view.map_journal(numbers[-1]), "it has the right map"
    assert not view.map_journal(999), "there is no such journal"
    with pytest.raises(ValueError, match="1024"):
        view.map_journal(1024)


@pytest.mark.parametrize("readers", [1, 3])
def test_nothing_is_missed_while_the_other_process_works(writer, readers):
    keys = all_keys()[:128]
    view = writer.view()
    writer.do("put", 0, 128, 0)
    failures: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        reader, many = Reader([view]), np.tile(keys, (20, 1))
        seen = np.zeros(len(keys), np.uint64)
        try:
            while not done.is_set():
                found, payloads = reader.get_many(HASH, many, 48)
                assert found.all()
                versions = versions_of(many, payloads).reshape(-1, len(keys))
                assert (versions.min(axis=0) >= seen).all(), "an old payload came back"
                seen = versions.max(axis=0)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(readers)]
    writer.begin("churn", 128, 1, 600)
    for thread in threads:
        thread.start()
    _records, made = writer.end()
    done.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert made > 200
    assert_versions(Reader([view]), keys, 600)


# ---- a writer that does not go on


class Stopped(Exception):
    """What a test raises out of a lookup."""


def sequence_at(writer: Writer, at: int) -> memoryview:
    """A word of the index that a test may write."""
    return memoryview(SIZE.map_shared(writer.index, writable=True))[at : at + 8].cast("Q")


@pytest.mark.parametrize("at", [SEGMENTS_AT, JOURNALS_AT])
@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL])
def test_a_writer_that_ends_in_the_middle_of_a_change_ends_the_lookup(writer, at, fate):
    keys = all_keys()[:500]
    writer.do("put", 0, 500, 1)
    called: list[int] = []
    answers = [True, True, False]

    def stuck(shard: int) -> None:
        called.append(shard)
        if not answers[len(called) - 1]:
            raise Stopped

    other = IndexedLog(segments=1)
    reader = Reader([writer.view()], stuck=stuck)
    assert_versions(reader, keys, 1)
    os.kill(writer.process.pid, fate)
    sequence = sequence_at(writer, at)
    sequence[0] += 1
    with pytest.raises(Stopped):
        reader.get_many(HASH, keys, 48)
    assert called == [0, 0, 0]
    called.clear()
    with pytest.raises(Stopped):
        for key in keys:
            reader.get(HASH, key)
    called.clear()
    fresh = Reader([writer.view()], stuck=stuck)
    with pytest.raises(Stopped):
        fresh.get_many(HASH, keys, 48)
    called.clear()
    # While it lasts, who is asked may also wait.
    answers[:] = [True] * 3

    def wait(shard: int) -> None:
        called.append(shard)
        if len(called) == 3:
            sequence[0] += 1

    assert_versions(Reader([writer.view()], stuck=wait), keys, 1)
    assert called == [0, 0, 0]
    assert_versions(reader, keys, 1)
    assert other.reader.get(HASH, keys[0]) is None


def test_the_shard_that_is_stuck_is_named(writer):
    keys = all_keys()[:500]
    writer.do("put", 0, 500, 1)
    sequence = sequence_at(writer, SEGMENTS_AT)
    sequence[0] += 1
    asked: set[int] = set()

    def stuck(shard: int) -> None:
        asked.add(shard)
        raise Stopped

    reader = Reader([IndexedLog(segments=1).index, IndexedLog(segments=1).index, writer.view()], stuck=stuck)
    with pytest.raises(Stopped):
        reader.get_many(HASH, keys, 48)
    assert asked == {2}


def test_without_anybody_to_ask_it_waits_until_the_change_ends(writer):
    keys = all_keys()[:100]
    writer.do("put", 0, 100, 1)
    reader = Reader([writer.view()])
    sequence = sequence_at(writer, JOURNALS_AT)
    sequence[0] += 1
    timer = threading.Timer(0.05, lambda: sequence.__setitem__(0, sequence[0] + 1))
    timer.start()
    assert_versions(reader, keys, 1)
    timer.join()


# ---- maps


def test_what_maps_a_journal_may_fail(writer):
    keys = all_keys()[:10]
    writer.do("put", 0, 10, 1)
    answers: list[object] = [OSError("no map"), None, b""]

    def failing(_number: int, _offset: int, _length: int) -> object:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    memory = SIZE.map_shared(writer.index, writable=False)
    shape = (KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes)
    reader = Reader([IndexView(memory, *shape, failing)])
    with pytest.raises(OSError, match="no map"):
        reader.get_many(HASH, keys, 48)
    with pytest.raises(ValueError, match="not mapped"):
        reader.get(HASH, keys[0])


def test_a_map_that_is_too_short_is_not_read_beyond_its_end(writer):
    keys = all_keys()[:200]
    writer.do("put", 0, 200, 1)
    writer.do("roll")

    def stuck(_shard: int) -> None:
        raise Stopped

    def one_cluster(_number: int, offset: int, _length: int) -> Mapping:
        return Mapping(writer.volume, offset, 3 * CLUSTER)

    memory = SIZE.map_shared(writer.index, writable=False)
    shape = (KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes)
    reader = Reader([IndexView(memory, *shape, one_cluster)], stuck=stuck)
    assert reader.get(HASH, keys[0]) is not None
    with pytest.raises(Stopped):
        reader.get_many(HASH, keys, 48)


def test_maps_that_were_replaced_are_let_go(writer):
    held: list[weakref.ref[Mapping]] = []

    class Watched(Mapping):
        pass

    def watched(_number: int, offset: int, length: int) -> Mapping:
        mapping = Watched(writer.volume, offset, length)
        held.append(weakref.ref(mapping))
        return mapping

    memory = SIZE.map_shared(writer.index, writable=False)
    shape = (KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes)
    reader, keys = Reader([IndexView(memory, *shape, watched)]), all_keys()
    for version in range(10):
        writer.do("roll")
        writer.do("put", 0, 10, version)
        writer.do("forget")
        assert_versions(reader, keys[:10], version)
    gc.collect()
    assert len(held) == 10
    assert sum(one() is not None for one in held) == 2


# ---- memory that is no index


def test_memory_of_another_layout_is_refused(writer):
    memory = bytearray(layout_bytes(SIZE.segments, SIZE.window_bytes) + 4096)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    aligned = memoryview(memory)[-address % 4096 :][: layout_bytes(SIZE.segments, SIZE.window_bytes)]

    def view(segments: int = SIZE.segments, window_bytes: int = SIZE.window_bytes) -> IndexView:
        return IndexView(aligned, KeyTypes(TYPES), SECRET, segments, window_bytes, writer.map)

    with pytest.raises(ValueError, match="no index"):
        view()
    LogIndex(aligned, KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes)
    assert view().records == 0
    with pytest.raises(ValueError, match="not of 1 segments"):
        view(segments=1)
    with pytest.raises(ValueError, match="of 4096 bytes"):
        view(window_bytes=4096)
    with pytest.raises(ValueError, match="too few"):
        view(segments=4)
    aligned[8:16] = struct.pack("<Q", 99)
    with pytest.raises(ValueError, match="version 99"):
        view()


def test_the_writer_needs_memory_that_can_be_written(writer):
    with pytest.raises((ValueError, BufferError)):
        LogIndex(
            memoryview(SIZE.map_shared(writer.index, writable=False)),
            KeyTypes(TYPES),
            SECRET,
            SIZE.segments,
            SIZE.window_bytes,
        )
