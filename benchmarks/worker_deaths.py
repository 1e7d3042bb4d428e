"""What a killed worker costs: how soon callers know, how soon it serves again, and how long others wait meanwhile.

Run it with a folder on the disk that is to be measured: ``python benchmarks/worker_deaths.py FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import siltstone
from siltstone import HashInfo
from siltstone.errors import OutcomeUnknownError, ShardAwayError
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 10_000
WORKERS = 2
#: the worker that is killed, and the one that goes on
VICTIM, OTHER = 0, 1
#: how often the caller of the killed worker tries again [seconds]
AGAIN_SECONDS = 0.0005


class Longest:
    """The longest of the calls that ended since the last look [seconds]."""

    def __init__(self) -> None:
        self._longest = 0.0
        self.calls = 0

    def time(self, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        self._longest = max(self._longest, time.perf_counter() - start)
        self.calls += 1

    def look(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


def fill(store: siltstone.Store, records: int) -> np.ndarray:
    """Put that many records, flushed; their hashes."""
    hashes = np.random.default_rng(1).integers(0, 256, (records, 32), np.uint8)
    sectors = np.arange(records, dtype=np.uint64)
    for at in range(0, records, ROWS):
        part = slice(at, at + ROWS)
        store.put_many(hashes[part], sectors[part], sectors[part])
    store.flush()
    return hashes


def keys_of(store: siltstone.Store, hashes: np.ndarray, worker: int) -> list[bytes]:
    """Some keys that belong to the shards of a worker."""
    told = store.info()
    router = Router(KeyTypes({2: (0, 32)}), bytes.fromhex(told.uuid.replace("-", "")), told.shards)
    some = hashes[: 20 * ROWS]
    return [bytes(key) for key in some[router.shards_of(2, some) % WORKERS == worker]]


def commit(store: siltstone.Store, key: bytes) -> None:
    """Put and flush; again where a loss is told, which is told once."""
    while True:
        try:
            store.put(HashInfo(key, 1, 1))
            store.flush()
        except (OutcomeUnknownError, ShardAwayError):
            time.sleep(AGAIN_SECONDS)
        else:
            return


def strike(store: siltstone.Store, key: bytes) -> tuple[float, float]:
    """Kill the worker of a key; how long until a caller that puts and flushes it is told, and until it is served."""
    pid = store.workers()[VICTIM].pid
    assert pid is not None
    start = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    try:
        # A flush that the worker had still answered tells of nothing.
        while True:
            store.put(HashInfo(key, 1, 1))
            store.flush()
    except (OutcomeUnknownError, ShardAwayError):
        told = time.perf_counter() - start
    commit(store, key)
    return told, time.perf_counter() - start


def show(name: str, seconds: list[float]) -> None:
    print(
        f"{name}: median {statistics.median(seconds) * 1000:,.1f} ms,"
        f" {min(seconds) * 1000:,.1f} to {max(seconds) * 1000:,.1f}"
    )


def measure(store: siltstone.Store, records: int, deaths: int) -> None:
    hashes = fill(store, records)
    mine, others = keys_of(store, hashes, VICTIM), keys_of(store, hashes, OTHER)
    lookups, commits, over = Longest(), Longest(), threading.Event()

    def look_up() -> None:
        while not over.is_set():
            for key in others[:1000]:
                lookups.time(lambda key=key: store.get(key))

    def put_and_flush() -> None:
        while not over.is_set():
            for key in others[:1000]:
                commits.time(lambda key=key: flushed(store, key))

    calm: list[tuple[float, float]] = []
    struck: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []
    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(look_up), pool.submit(put_and_flush)]
        try:
            for death in range(deaths):
                # As long as a death takes, so that the longest of as many calls are compared.
                lookups.look(), commits.look()
                end = time.perf_counter() + (found[-1][1] if found else 1.0)
                while time.perf_counter() < end:
                    # It gets something done between two deaths, or the third would stop it for good.
                    commit(store, mine[death])
                calm.append((lookups.look(), commits.look()))
                found.append(strike(store, mine[death]))
                struck.append((lookups.look(), commits.look()))
        finally:
            over.set()
        for each in working:
            each.result()
    assert store.workers()[VICTIM].restarts == deaths
    show("until a caller of its shards is told", [told for told, _served in found])
    show("until its shards are served again", [served for _told, served in found])
    for name, waits in (("meanwhile", struck), ("as long without a death", calm)):
        show(f"longest lookup in the other's shards {name}", [lookup for lookup, _commit in waits])
        show(f"longest put + flush in the other's shards {name}", [commit for _lookup, commit in waits])


def flushed(store: siltstone.Store, key: bytes) -> None:
    """Put and flush; a loss of the other worker, which every thread that puts is told of once, is no matter here."""
    store.put(HashInfo(key, 1, 1))
    try:
        store.flush()
    except OutcomeUnknownError:
        store.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--deaths", type=int, default=10)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        siltstone.open(Path(folder, "store.silt"), workers=WORKERS) as store,
    ):
        print(f"{options.records:,} records, {WORKERS} workers, {options.deaths} deaths")
        measure(store, options.records, options.deaths)


if __name__ == "__main__":
    main()
