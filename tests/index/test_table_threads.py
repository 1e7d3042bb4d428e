"""Readers beside a writer: growth, moves, tails that are closed and journals that roll hide no key, mix no payload."""

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
    for round_ in range(3):
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


# ---- one reader that does nothing but look, so that it is there when something moves

LOOKED_UP_AT_ONCE = 8192


def look_hard(stage: Stage, keys: np.ndarray) -> None:
    """Look these keys up, thousands in a call, until the writer is done; each is there, with a version not gone by."""
    many = np.tile(keys, (LOOKED_UP_AT_ONCE // len(keys), 1))
    seen = np.zeros(len(keys), np.uint64)
    while True:
        last_round = stage.done
        least = np.maximum(seen, np.uint64(stage.version))
        found, payloads = stage.log.reader.get_many(HASH, many, 48)
        assert found.all(), f"{(~found).sum()} of {len(many)} lookups missed a key that is there"
        # Lookups of one call may overtake one another; what one call saw no later call sees undone.
        versions = versions_in(many, payloads).reshape(-1, len(keys))
        assert (versions.min(axis=0) >= least).all(), "an old payload came back"
        seen = versions.max(axis=0)
        if last_round:
            return


def beside(stage: Stage, keys: np.ndarray, work) -> None:
    """Run `work` in a thread while this one looks hard."""

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test
            stage.failures.append(error)
        finally:
            stage.done = True

    thread = threading.Thread(target=run)
    thread.start()
    try:
        look_hard(stage, keys)
    finally:
        stage.done = True
        thread.join()
    assert not stage.failures


def random_keys(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


@pytest.mark.parametrize("shared", [False, True])
def test_growth_hides_no_key(shared):
    for round_ in range(120):
        keys = random_keys(12_000, round_)
        log = IndexedLog(segments=1, window_bytes=1 << 18, journal_bytes=1 << 20, shared=shared)
        stage = Stage(log, keys)
        stable = keys[:256]
        log.apply(stream_of(payloads_for(stable, 0)))
        fresh = [stream_of(payloads_for(keys[start : start + 1500], 0)) for start in range(256, 12_000, 1500)]
        small = log.index.bytes
        beside(stage, stable, lambda log=log, fresh=fresh: [log.apply(stream) for stream in fresh])
        assert log.index.bytes > 20 * small


def test_moves_hide_no_key():
    # At nine tenths full, with as many deleted as put, about every second put must move others and none grows.
    log = IndexedLog(segments=1, journal_bytes=1 << 26)
    stable, fickle = random_keys(176, 1), random_keys(60_000, 2)
    log.apply(stream_of(payloads_for(stable, 0)))
    log.apply(stream_of(payloads_for(fickle[:176], 0)))
    size = log.index.bytes
    batches = []
    for start in range(0, len(fickle) - 352, 88):
        leaving, coming = fickle[start : start + 88], fickle[start + 176 : start + 264]
        gone = packed(deletion(HASH, key.tobytes()) for key in leaving)
        batches.append(np.concatenate([gone, stream_of(payloads_for(coming, 0))]))

    def churn() -> None:
        for batch in batches:
            log.apply(batch)

    beside(Stage(log, stable), stable, churn)
    assert log.index.records == 352
    assert log.index.bytes == size, "it grew; then this tests something else"


@pytest.mark.parametrize("roll", [False, True])
def test_a_tail_that_is_left_hides_no_key_and_shows_no_other(roll):
    # Each batch fills a cluster and leaves the keys in the next tail, at another place than before.
    log = IndexedLog(segments=1, journal_bytes=1 << 26)
    keys = random_keys(32, 3)
    stage = Stage(log, keys)
    log.apply(stream_of(payloads_for(keys, 0)))
    filler = [
        packed([entry(0x30, bytes(200))] * 20 + [entry(0x30, bytes(number * 3))]) for number in range(40)
    ]

    def overwrite() -> None:
        for version in range(1, 4000):
            log.apply(np.concatenate([filler[version % 40], stream_of(payloads_for(keys, version))]))
            stage.version = version
            if roll and version % 5 == 0 and len(log.journals) < 900:
                log.roll()

    beside(stage, keys, overwrite)
    assert stage.version == 3999
    assert len(log.journals) == (800 if roll else 1)


def test_what_an_earlier_life_left_in_a_journal_is_not_seen():
    # The same keys at the same places: only the tail in memory tells them apart.
    keys = random_keys(60, 4)
    old = IndexedLog(segments=1, journal_bytes=16 * CLUSTER)
    for version in (1, 2):
        old.apply(stream_of(payloads_for(keys, version)))
    old.roll()
    fresh = IndexedLog(segments=1, journal_bytes=16 * CLUSTER)
    fresh.journals[0][:] = old.journals[0][:]
    stream = stream_of(payloads_for(keys, 9))
    fresh.apply(stream)
    found, payloads = fresh.reader.get_many(HASH, keys, 48)
    assert found.all()
    assert (versions_in(keys, payloads) == 9).all()
    for key in keys:
        single = fresh.get(HASH, key)
        assert single is not None
        assert versions_in(key[None], np.frombuffer(single, np.uint8)[None]).tolist() == [9]
