"""Threads that share a store: each sees what it put, and what others put before; closing disturbs nobody."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from real_media import make_file
from store_faults import Faults, at_call
from store_records import assert_holds, assert_lacks, digest, hashes, info, rows

import siltstone
from siltstone.errors import ClosedError

SMALL = {"erase_block": 64 * 1024}
MIB = 1 << 20
THREADS = 8


def together(count, work):
    """Let threads 0, 1, ... begin `work` at the same moment; raise what one of them raised."""
    start = threading.Barrier(count)

    def begin(number):
        start.wait(timeout=60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [done.result(timeout=300) for done in [pool.submit(begin, number) for number in range(count)]]


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("crash", [False, True])
def test_threads_put_get_flush_and_delete_together(path, shards, crash, full_battery):
    rounds = 150 if full_battery else 12
    store = siltstone.open(path, shards=shards, **SMALL)

    def work(number):
        """Own keys only; all of them are as this thread left them, after each flush."""
        random = np.random.default_rng(number)
        first = number * 1_000_000
        version = np.full(3000, -1)
        for at in range(rounds):
            keys = np.unique(random.integers(0, 3000, int(random.integers(1, 800))))
            store.put_many(*rows(first + keys, at))
            version[keys] = at
            gone = np.unique(random.integers(0, 3000, 50))
            there = store.delete_many(hashes(first + gone))
            np.testing.assert_array_equal(there, version[gone] >= 0)
            version[gone] = -1
            single = int(random.integers(0, 3000))
            store.put(info(first + single, at))
            version[single] = at
            with store.batch() as batch:
                batch.put_many(*rows(first + np.arange(20), at))
                batch.delete(digest(first + 10))
            version[:20], version[10] = at, -1
            store.flush()
            for known in np.unique(version[version >= 0]):
                assert_holds(store, first + np.flatnonzero(version == known), int(known))
            assert_lacks(store, first + np.flatnonzero(version < 0))
            assert store.get(digest(first + single)) == (
                info(first + single, at) if version[single] == at else None
            )
        return version

    try:
        versions = together(THREADS, work)
    finally:
        store._core.abandon() if crash else store.close()
    with siltstone.open(path) as store:
        assert len(store) == sum(int((version >= 0).sum()) for version in versions)
        for number, version in enumerate(versions):
            for known in np.unique(version[version >= 0]):
                assert_holds(store, number * 1_000_000 + np.flatnonzero(version == known), int(known))
            assert_lacks(store, number * 1_000_000 + np.flatnonzero(version < 0))


def test_a_put_that_returned_is_seen_by_all(path):
    """One puts and tells the number; the others look at once, while journals roll and the index grows."""
    puts = 3000
    with siltstone.open(path, shards=2, **SMALL) as store:
        told = 0
        more = threading.Condition()

        def put():
            nonlocal told
            for number in range(0, puts * 10, 10):
                store.put_many(*rows(range(number, number + 10)))
                with more:
                    told = number + 10
                    more.notify_all()

        def look(seed):
            random = np.random.default_rng(seed)
            seen = 0
            while seen < puts * 10:
                with more:
                    more.wait_for(lambda seen=seen: told > seen, timeout=60)
                    seen = told
                assert_holds(store, range(seen - 10, seen))
                assert_holds(store, random.integers(0, seen, 50))
                number = int(random.integers(0, seen))
                assert store.get(digest(number)) == info(number)
                assert store.get(digest(puts * 10 + number)) is None

        together(4, lambda number: put() if number == 0 else look(number))
        assert len(store) == puts * 10


def test_a_key_shows_one_of_its_values_while_it_is_put_again_and_again(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        numbers = np.arange(500)
        store.put_many(*rows(numbers, 0))
        ended = threading.Event()

        def put():
            try:
                for version in range(1, 200):
                    store.put_many(*rows(numbers, version))
            finally:
                ended.set()

        def look():
            newest = np.zeros(len(numbers), int)
            known = {value: version for version in range(200) for value in rows(numbers, version)[1].tolist()}
            while True:
                last = ended.is_set()
                found, physical, logical = store.get_many(hashes(numbers))
                assert found.all()
                np.testing.assert_array_equal(logical, ~physical)
                versions = np.array([known[value] for value in physical.tolist()])
                assert (versions >= newest).all(), "an older value came back"
                newest = versions
                if last:
                    assert (newest == 199).all()
                    return

        together(3, lambda number: put() if number == 0 else look())


# ---- closing


def test_closing_while_others_read_ends_their_reads(path, full_battery):
    for _life in range(100 if full_battery else 5):
        store = siltstone.open(path, shards=2, **SMALL)
        store.put_many(*rows(range(5000)))
        reading = threading.Barrier(5)

        def read(number, store=store, reading=reading):
            reading.wait(timeout=60)
            with pytest.raises(ClosedError):
                while True:
                    if number % 2:
                        assert_holds(store, range(5000))
                    else:
                        assert store.get(digest(7)) == info(7)

        def close(store=store, reading=reading):
            reading.wait(timeout=60)
            store.close()

        together(5, lambda number: close() if number == 0 else read(number))


def test_closing_while_others_write_loses_nothing_that_was_flushed(path, full_battery):
    put = dict.fromkeys(range(4), 0)
    for _life in range(60 if full_battery else 6):
        store = siltstone.open(path, shards=2, **SMALL)
        writing = threading.Barrier(5)

        def write(number, store=store, writing=writing):
            writing.wait(timeout=60)
            try:
                while True:
                    start = number * 10_000_000 + put[number]
                    store.put_many(*rows(range(start, start + 300)))
                    store.flush()
                    put[number] += 300
            except ClosedError:
                pass

        def close(store=store, writing=writing):
            writing.wait(timeout=60)
            # Not before somebody has written something.
            while not len(store):
                pass
            store.close()

        together(5, lambda number: close() if number == 0 else write(number - 1))
        with siltstone.open(path) as store:
            assert store.info().clean
            for number, count in put.items():
                assert_holds(store, range(number * 10_000_000, number * 10_000_000 + count))


def test_closing_twice_at_once_is_closing(path, full_battery):
    for _life in range(20 if full_battery else 5):
        store = siltstone.open(path, shards=2, **SMALL)
        store.put(info(1))
        together(4, lambda _number, store=store: store.close())
        with siltstone.open(path) as store:
            assert store.info().clean


def test_a_put_between_the_last_flush_and_the_end_of_a_close_is_refused(path):
    """Else it would lie behind the end that the superblock states, and the store would look damaged."""
    faults = Faults()
    store = siltstone.open(f"faulty:{path}", shards=1, plugins=faults.host(), **SMALL)
    group = store._core.shards.group
    router = store._core.router
    store.put_many(*rows(range(100)))
    payloads = np.concatenate([column.view(np.uint8).reshape(1000, -1) for column in late_columns()], axis=1)
    stream, counts = router.route(store._default.id, np.ascontiguousarray(payloads))
    refused = []

    def meddle(_inner, offset, _data):
        if offset < MIB:
            # The superblock is being written: all that can be flushed is.
            with pytest.raises(ClosedError) as caught:
                group.append({0: (stream, int(counts[0]))})
            refused.append(caught.value)

    faults.write = meddle
    store.close()
    assert refused
    for _opening in range(2):
        with siltstone.open(path) as store:
            assert store.info().clean
            assert len(store) == 100


def late_columns():
    digests, physical, logical = rows(range(1000, 2000))
    return digests, physical.astype(">u8"), logical.astype(">u8")


def test_many_flushes_at_once_are_few_flushes_of_the_medium(path):
    faults = Faults()
    with siltstone.open(f"faulty:{path}", shards=2, plugins=faults.host(), **SMALL) as store:
        waiting = threading.Event()
        go_on = threading.Event()

        def slow(_inner):
            waiting.set()
            assert go_on.wait(timeout=60)

        store.put(info(0))
        with ThreadPoolExecutor(THREADS + 1) as pool:
            faults.flush = at_call(1, slow)
            first = pool.submit(store.flush)
            assert waiting.wait(timeout=60)
            before = len([1 for what, *_ in faults.log if what == "flush"])

            def put_and_flush(number):
                store.put(info(number))
                store.flush()

            others = [pool.submit(put_and_flush, number) for number in range(1, THREADS + 1)]
            while len(store) < THREADS + 1:
                pass
            go_on.set()
            for done in [first, *others]:
                done.result(timeout=60)
        flushes = len([1 for what, *_ in faults.log if what == "flush"]) - before
        assert flushes <= 3, (
            "the one that was slow, the one that serves all who waited, and an idle note at most"
        )


def test_a_write_while_the_file_grows_is_no_sign_that_it_was_cut(path):
    """One thread makes room for a journal while others write; the one must not mislead the others."""
    with make_file(path, 4096) as backend:
        ended = threading.Event()

        def grow():
            try:
                for size in range(8192, 24 * MIB, 4096):
                    backend.grow(size)
            finally:
                ended.set()

        def write():
            while not ended.is_set():
                backend.write(0, b"x" * 4096)

        together(3, lambda number: grow() if number == 0 else write())
        assert backend.read(0, 4096) == b"x" * 4096
