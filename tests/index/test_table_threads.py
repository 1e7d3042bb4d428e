"""Readers beside a writer: growth, moves, tails that become clusters and journals that roll hide no key and mix no payload."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from indexed_log import CLUSTER, HASH, IndexedLog, deletion, entry, packed

HOT = 64  # keys that every batch overwrites
COMING_AND_GOING = 64  # keys that batches put and delete in turn
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def payloads_for(keys: np.ndarray, version: int) -> np.ndarray:
    """48 bytes a key: the key, the version, and a word that only this key and version have."""
    rows = np.empty((len(keys), 48), np.uint8)
    rows[:, :32] = keys
    words = np.full(len(keys), version, np.uint64)
    rows[:, 32:40] = words.view(np.uint8).reshape(-1, 8)
    rows[:, 40:] = mark_of(keys, words).view(np.uint8).reshape(-1, 8)
    return rows


def mark_of(keys: np.ndarray, versions: np.ndarray) -> np.ndarray:
    first = np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]
    return (first ^ versions) * MULTIPLIER


def stream_of(payloads: np.ndarray) -> np.ndarray:
    rows = np.empty((len(payloads), 50), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2:] = 50, HASH, payloads
    return rows.ravel()


def versions_in(keys: np.ndarray, payloads: np.ndarray) -> np.ndarray:
    """The versions of what was found; AssertionError for a payload that was never written."""
    assert (payloads[:, :32] == keys).all()
    versions = np.ascontiguousarray(payloads[:, 32:40]).view(np.uint64)[:, 0]
    marks = np.ascontiguousarray(payloads[:, 40:]).view(np.uint64)[:, 0]
    assert (marks == mark_of(keys, versions)).all()
    return versions


@dataclass
class Stage:
    """What writer and readers share: an index, its keys, and how far the writer is."""

    log: IndexedLog
    keys: np.ndarray
    published: int = HOT  # keys[:published] are there
    version: int = 0  # the hot keys have at least this one
    done: bool = False
    failures: list[BaseException] = field(default_factory=list)
    looked_up: int = 0

    @property
    def fickle(self) -> np.ndarray:
        return self.keys[-COMING_AND_GOING:]


def write(stage: Stage, batch: int) -> None:
    """Put all keys, batch by batch, the hot ones again each time."""
    try:
        last = len(stage.keys) - COMING_AND_GOING
        for version, start in enumerate(range(HOT, last, batch), 1):
            fresh = stage.keys[start : min(start + batch, last)]
            stage.log.apply(stream_of(payloads_for(np.concatenate([fresh, stage.keys[:HOT]]), version)))
            stage.published, stage.version = start + len(fresh), version
            if version % 2:
                stage.log.apply(stream_of(payloads_for(stage.fickle, version)))
            else:
                stage.log.apply(packed(deletion(HASH, key.tobytes()) for key in stage.fickle))
            if version % 7 == 0:
                stage.log.roll()
    except BaseException as error:  # noqa: BLE001 - told to the test
        stage.failures.append(error)
    finally:
        stage.done = True


def read_many(stage: Stage, seed: int) -> None:
    """Look up keys that are there, hot ones, and ones that come and go, until the writer is done."""
    rng = np.random.default_rng(seed)
    seen = np.zeros(HOT, np.uint64)
    try:
        while True:
            last_round = stage.done
            there, least = stage.published, stage.version
            chosen = stage.keys[rng.integers(0, there, 300)]
            found, payloads = stage.log.reader.get_many(HASH, chosen, 48)
            assert found.all(), f"{(~found).sum()} of {there} keys were not found"
            versions_in(chosen, payloads)
            found, payloads = stage.log.reader.get_many(HASH, stage.keys[:HOT], 48)
            assert found.all()
            versions = versions_in(stage.keys[:HOT], payloads)
            assert (versions >= np.maximum(seen, np.uint64(least))).all(), "an old payload came back"
            seen = versions
            found, payloads = stage.log.reader.get_many(HASH, stage.fickle, 48)
            versions_in(stage.fickle[found], payloads[found])
            assert not payloads[~found].any()
            stage.looked_up += len(chosen)
            if last_round:
                return
    except BaseException as error:  # noqa: BLE001 - told to the test
        stage.failures.append(error)


def read_singly(stage: Stage, seed: int) -> None:
    """The same with single lookups, which look for the tail in another way."""
    rng = np.random.default_rng(seed)
    try:
        while True:
            last_round = stage.done
            for number in rng.integers(0, stage.published, 50).tolist():
                key = stage.keys[number]
                payload = stage.log.get(HASH, key)
                assert payload is not None, f"key {number} was not found"
                versions_in(key[None], np.frombuffer(payload, np.uint8)[None])
            stage.looked_up += 50
            if last_round:
                return
    except BaseException as error:  # noqa: BLE001 - told to the test
        stage.failures.append(error)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch", [3, 40, 400])
def test_readers_see_every_key_at_every_moment(shared, batch):
    # Small batches move tails, large ones fill segments; each round starts small, where growth comes soon.
    for round_ in range(4):
        keys = np.random.default_rng(round_).integers(0, 256, (min(15_000, 600 * batch), 32), np.uint8)
        log = IndexedLog(segments=2, window_bytes=1 << 19, journal_bytes=32 * CLUSTER, shared=shared)
        stage = Stage(log, keys)
        log.apply(stream_of(payloads_for(keys[:HOT], 0)))
        threads = [
            threading.Thread(target=read_many, args=(stage, round_)),
            threading.Thread(target=read_singly, args=(stage, round_)),
            threading.Thread(target=write, args=(stage, batch)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if stage.failures:
            raise stage.failures[0]
        assert stage.published == len(keys) - COMING_AND_GOING
        assert stage.looked_up > 0
        assert len(log.journals) > 4


def test_a_tail_that_is_closed_while_it_is_read():
    # One key is overwritten again and again: its entry lies in the tail, then in a cluster, then in the next tail.
    log = IndexedLog(segments=1, journal_bytes=1 << 22)
    key = np.full((1, 32), 7, np.uint8)
    filler = entry(0x30, bytes(200))
    stage = Stage(log, key)
    log.apply(stream_of(payloads_for(key, 0)))

    def overwrite() -> None:
        try:
            for version in range(1, 6000):
                log.apply(np.concatenate([stream_of(payloads_for(key, version)), packed([filler] * (version % 8))]))
                stage.version = version
        except BaseException as error:  # noqa: BLE001 - told to the test
            stage.failures.append(error)
        finally:
            stage.done = True

    writer = threading.Thread(target=overwrite)
    writer.start()
    seen = 0
    while not stage.done:
        least = stage.version
        found, payloads = log.reader.get_many(HASH, key, 48)
        assert found.all()
        version = int(versions_in(key, payloads)[0])
        assert version >= max(seen, least)
        seen = version
        single = log.get(HASH, key[0])
        assert single is not None
        version = int(versions_in(key, np.frombuffer(single, np.uint8)[None])[0])
        assert version >= seen
        seen = version
    writer.join()
    assert not stage.failures
    assert stage.version == 5999
