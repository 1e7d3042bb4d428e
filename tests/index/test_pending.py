"""Entries on their way to an index: found before it is asked, the newest first, until they are retired or cancelled."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from indexed_log import HASH, SECRET, SHORT, TYPES, VARYING, IndexedLog, deletion, entry, packed
from test_table_model import BATCH, key_of, payload_of
from test_table_threads import HOT, payloads_for, random_keys, stream_of, versions_in

from siltstone.index.pending import Pending
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes
from siltstone.lookup.reader import Reader


def pending() -> Pending:
    return Pending(KeyTypes(TYPES), SECRET)


def reader_of(log: IndexedLog, waiting: Pending) -> Reader:
    return Reader([log.index], [waiting])


def short(number: int, value: int) -> bytes:
    return entry(SHORT, payload_of(SHORT, number, value))


# ---- against a dict


class PendingAndDict(RuleBasedStateMachine):
    """An index, what is on its way to it, and the frames that say what both together must answer."""

    @initialize()
    def start(self) -> None:
        self.log = IndexedLog(segments=1)
        self.waiting = pending()
        self.reader = reader_of(self.log, self.waiting)
        self.indexed: dict[tuple[int, bytes], bytes | None] = {}
        self.sent: deque[tuple[int, np.ndarray, dict[tuple[int, bytes], bytes | None]]] = deque()
        self.sequence = 0

    @rule(batch=BATCH)
    def add(self, batch: list[tuple[str, int, int, int]]) -> None:
        entries: list[bytes] = []
        says: dict[tuple[int, bytes], bytes | None] = {}
        for what, kind, number, value in batch:
            if what == "put":
                says[kind, key_of(kind, number)] = payload_of(kind, number, value)
                entries.append(entry(kind, payload_of(kind, number, value)))
            elif what == "delete":
                says[kind, key_of(kind, number)] = None
                entries.append(deletion(kind, key_of(kind, number)))
            else:
                entries.append(entry(0x30, bytes([number])))
        self.sequence += 1 + len(batch) % 3
        stream = packed(entries)
        self.waiting.add(self.sequence, stream)
        self.sent.append((self.sequence, stream, says))

    @precondition(lambda self: self.sent)
    @rule(count=st.integers(1, 3))
    def apply_and_retire(self, count: int) -> None:
        for _ in range(min(count, len(self.sent))):
            last, stream, says = self.sent.popleft()
            self.log.apply(stream)
            self.indexed.update(says)
        self.waiting.retire(last)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.sent) - 1))
        self.waiting.cancel(self.sent[at][0])
        del self.sent[at]

    @rule()
    def what_is_not_there_cannot_be_cancelled(self) -> None:
        self.waiting.cancel(self.sequence + 1)

    @rule()
    def clear(self) -> None:
        self.waiting.clear()
        self.sent.clear()

    def held(self) -> dict[tuple[int, bytes], bytes | None]:
        held = dict(self.indexed)
        for _sequence, _stream, says in self.sent:
            held.update(says)
        return held

    # A rule, so that now and then many frames come before the first lookup.
    @rule()
    def ask(self) -> None:
        held = self.held()
        for kind in (HASH, SHORT, VARYING):
            for number in range(61):
                key = key_of(kind, number)
                assert self.reader.get(kind, key) == held.get((kind, key))
        for kind in (HASH, SHORT):
            keys = [key_of(kind, number) for number in range(61)]
            rows = np.frombuffer(b"".join(keys), np.uint8).reshape(61, -1)
            size = len(payload_of(kind, 0, 0))
            found, payloads = self.reader.get_many(kind, rows, size)
            for key, there, payload in zip(keys, found.tolist(), payloads, strict=True):
                assert (payload.tobytes() if there else None) == held.get((kind, key))

    @invariant()
    def sizes(self) -> None:
        assert self.waiting.frames == len(self.sent)
        assert self.waiting.bytes == sum(len(stream) for _sequence, stream, _says in self.sent)


TestPendingAndDict = PendingAndDict.TestCase


# ---- rules


def test_the_last_frame_wins_and_the_last_entry_in_it():
    log, waiting = IndexedLog(), pending()
    reader = reader_of(log, waiting)
    log.apply(packed([short(1, 0)]))
    waiting.add(1, packed([short(1, 256), short(1, 512)]))
    assert reader.get(SHORT, key_of(SHORT, 1)) == payload_of(SHORT, 1, 512)
    waiting.add(2, packed([short(1, 768), deletion(SHORT, key_of(SHORT, 1))]))
    assert reader.get(SHORT, key_of(SHORT, 1)) is None
    waiting.cancel(2)
    assert reader.get(SHORT, key_of(SHORT, 1)) == payload_of(SHORT, 1, 512)
    waiting.retire(2)
    assert reader.get(SHORT, key_of(SHORT, 1)) == payload_of(SHORT, 1, 0)


def test_a_payload_of_another_size_is_no_answer_to_a_batch_and_hides_the_index():
    log, waiting = IndexedLog(), pending()
    key = key_of(VARYING, 1)
    log.apply(packed([entry(VARYING, b"x" + key)]))
    waiting.add(1, packed([entry(VARYING, b"y" + key + b"longer")]))
    rows = np.frombuffer(key, np.uint8).reshape(1, -1)
    found, payloads = reader_of(log, waiting).get_many(VARYING, rows, 13)
    assert not found.any()
    assert not payloads.any()


@pytest.mark.parametrize(
    "stream",
    [b"", b"\x05", b"\x00\x02", b"\x01\x02", b"\x40\x02" + bytes(32), b"\xff" * 40, b"\x02\x04\x03\x04\x02"],
)
def test_a_stream_that_ends_in_an_entry_is_read_no_further(stream):
    log, waiting = IndexedLog(), pending()
    waiting.add(1, packed([short(1, 256)]))
    waiting.add(2, stream)
    waiting.add(3, np.concatenate([packed([short(2, 256)]), np.frombuffer(stream, np.uint8)]))
    reader = reader_of(log, waiting)
    assert reader.get(SHORT, key_of(SHORT, 1)) == payload_of(SHORT, 1, 256)
    assert reader.get(SHORT, key_of(SHORT, 2)) == payload_of(SHORT, 2, 256)
    assert reader.get(HASH, bytes(32)) is None
    waiting.clear()
    assert waiting.frames == waiting.bytes == 0


def test_sequences_rise():
    waiting = pending()
    waiting.add(5, b"")
    for sequence in (0, 4, 5):
        with pytest.raises(ValueError, match="rise"):
            waiting.add(sequence, b"")
    waiting.clear()
    with pytest.raises(ValueError, match="rise"):
        waiting.add(5, b"")
    waiting.add(6, b"")
    assert waiting.frames == 1


def test_buffers_are_kept_until_they_are_retired():
    waiting = pending()
    buffers = [bytearray(packed([short(number, 256)]).tobytes()) for number in range(3)]
    for number, buffer in enumerate(buffers, 1):
        waiting.add(number, buffer)

    def kept() -> list[bool]:
        held = []
        for buffer in buffers:
            try:
                buffer.append(0)
                buffer.pop()
                held.append(False)
            except BufferError:
                held.append(True)
        return held

    assert kept() == [True, True, True]
    waiting.cancel(2)
    assert kept() == [True, False, True]
    waiting.retire(1)
    assert kept() == [False, False, True]
    waiting.clear()
    assert kept() == [False, False, False]


def test_pending_entries_of_another_store_are_refused():
    log = IndexedLog()
    with pytest.raises(ValueError, match="secret"):
        Reader([log.index], [Pending(KeyTypes(TYPES), bytes(16))])
    with pytest.raises(ValueError, match="shards"):
        Reader([log.index], [])
    with pytest.raises(ValueError, match="secret"):
        Pending(KeyTypes(TYPES), bytes(15))


def test_many_frames_of_all_sizes_come_and_go():
    log, waiting = IndexedLog(journal_bytes=1 << 24), pending()
    reader = reader_of(log, waiting)
    keys = random_keys(120_000, 1)
    at = sequence = 0
    sent: deque[tuple[int, int]] = deque()
    for size in [1] * 300 + [1000] * 20 + [60_000] + [7] * 500:
        sequence += 1
        waiting.add(sequence, stream_of(payloads_for(keys[at : at + size], sequence)))
        sent.append((sequence, at))
        at += size
        if sequence % 3 == 0:
            waiting.retire(sent.popleft()[0])
        if sequence % 50 == 0:
            assert reader.get_many(HASH, keys[:at], 48)[0].tolist() == [
                number >= sent[0][1] for number in range(at)
            ]
    assert waiting.frames == len(sent)
    waiting.clear()
    assert not reader.get_many(HASH, keys[:at], 48)[0].any()
    waiting.add(sequence + 1, stream_of(payloads_for(keys[:10], 1)))
    assert reader.get_many(HASH, keys[:20], 48)[0].sum() == 10


# ---- beside threads


def test_what_is_on_its_way_never_goes_missing_or_back():
    shards = [IndexedLog(segments=2, journal_bytes=1 << 22) for _ in range(3)]
    waiting = [pending(), pending(), None]
    reader = Reader([log.index for log in shards], waiting)
    router = Router(KeyTypes(TYPES), SECRET, len(shards))
    keys = random_keys(HOT, 2)
    done = threading.Event()
    failures: list[BaseException] = []
    state = {"version": 0}

    def send(version: int) -> list[tuple[int, np.ndarray]]:
        stream, counts = router.route(HASH, payloads_for(keys, version))
        parts = np.split(stream, np.cumsum(counts)[:-1] * 50)
        for shard, part in enumerate(parts):
            one = waiting[shard]
            if one is None:
                shards[shard].apply(part)
            else:
                one.add(version + 1, part)
        state["version"] = version
        return [(shard, part) for shard, part in enumerate(parts) if waiting[shard] is not None]

    def write() -> None:
        try:
            under_way: deque[tuple[int, int, np.ndarray]] = deque()
            for version in range(1, 3000):
                under_way.extend((version, shard, part) for shard, part in send(version))
                # From none to some tens of frames are pending at a time.
                while len(under_way) > version % 60:
                    sent, shard, part = under_way.popleft()
                    shards[shard].apply(part)
                    waiting[shard].retire(sent + 1)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            done.set()

    def read() -> None:
        try:
            many = np.tile(keys, (16, 1))
            seen = np.zeros(HOT, np.uint64)
            while not done.is_set():
                least = np.maximum(seen, np.uint64(state["version"]))
                found, payloads = reader.get_many(HASH, many, 48)
                assert found.all()
                versions = versions_in(many, payloads).reshape(-1, HOT)
                assert (versions.min(axis=0) >= least).all(), "an old payload came back"
                seen = versions.max(axis=0)
                for number in range(0, HOT, 5):
                    single = reader.get(HASH, keys[number])
                    assert single is not None
                    version = versions_in(keys[number][None], np.frombuffer(single, np.uint8)[None])
                    assert version[0] >= seen[number]
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    send(0)
    threads = [threading.Thread(target=target) for target in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert state["version"] == 2999


@pytest.mark.parametrize("how", ["get", "get_many"])
def test_what_the_index_showed_is_not_hidden_by_what_is_still_on_its_way(how):
    """A batch that somebody waits for is not found on its way; that before it may be, until the writer has told."""
    log, waiting = IndexedLog(segments=2, journal_bytes=1 << 22), pending()
    reader = reader_of(log, waiting)
    keys = random_keys(HOT, 3)
    many = np.tile(keys, (64, 1))
    done = threading.Event()
    failures: list[BaseException] = []
    log.apply(stream_of(payloads_for(keys, 0)))
    batches = [stream_of(payloads_for(keys, version)) for version in range(1, 12_001)]

    def write() -> None:
        try:
            for version in range(1, len(batches), 2):
                # When it wakes, it stops the lookup wherever that is.
                time.sleep(1e-5)
                waiting.add(version, batches[version - 1])
                log.apply(batches[version - 1])
                log.apply(batches[version])
                time.sleep(1e-5)
                waiting.retire(version)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            done.set()

    def read() -> None:
        try:
            # Whoever else is to run on its processor does, at once.
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            newest = np.zeros(HOT if how == "get_many" else 1, np.uint64)
            while not done.is_set():
                if how == "get_many":
                    found, payloads = reader.get_many(HASH, many, 48)
                    assert found.all()
                    versions = versions_in(many, payloads).reshape(-1, HOT)
                else:
                    singles = [reader.get(HASH, keys[0]) for _again in range(1000)]
                    payloads = np.array([np.frombuffer(single, np.uint8) for single in singles])
                    versions = versions_in(np.tile(keys[:1], (1000, 1)), payloads)[:, None]
                in_turn = np.vstack([newest, versions])
                assert (in_turn[1:] >= in_turn[:-1]).all(), "an old payload came back"
                newest = versions[-1]
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for thread in threads:
            thread.start()
    finally:
        os.sched_setaffinity(0, allowed)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
