"""Workers that are killed and frozen under load: batches are there whole or not at all, and every call ends."""

from __future__ import annotations

import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from store_records import hashes, rows
from worker_stores import PATIENCE_S, SMALL, all_serve, is_running, kill, router_of, until

import siltstone
from siltstone.errors import OutcomeUnknownError, ShardAwayError

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = 4
VERSIONS = 1 << 20


@dataclass
class Batches:
    """One caller that puts all of its keys, which are of one shard, at once; which version of them it may find.

    :param keys: nobody else's
    """

    keys: list[int]
    possible: set[int] = field(default_factory=lambda: {0})
    unflushed: int | None = None
    version: int = 0
    flushes: int = 0
    doubts: int = 0

    def put(self, store: siltstone.Store, *, batched: bool) -> None:
        """Put the next version, in a batch or by columns; version 0 is nothing."""
        self.version += 1
        try:
            if batched:
                with store.batch() as batch:
                    batch.put_many(*rows(self.keys, version=self.version))
            else:
                store.put_many(*rows(self.keys, version=self.version))
        except OutcomeUnknownError:
            self.possible.add(self.version)
            self.unflushed = None
            self.doubts += 1
        except ShardAwayError:
            pass  # nothing was done
        else:
            self.possible.add(self.version)
            self.unflushed = self.version

    def flush(self, store: siltstone.Store) -> None:
        try:
            store.flush()
        except OutcomeUnknownError:
            self.doubts += 1
        else:
            self.flushes += 1
            if self.unflushed is not None:
                self.possible = {self.unflushed}
        self.unflushed = None

    def check(self, store: siltstone.Store) -> None:
        """All keys have one version, one that they may have; nobody puts meanwhile."""
        found, physical, _logical = store.get_many(hashes(self.keys))
        if not found.any():
            assert 0 in self.possible, self.possible
            return
        for version in self.possible - {0}:
            if found.all() and np.array_equal(physical, rows(self.keys, version=version)[1]):
                return
        raise AssertionError(f"{int(found.sum())} of {len(found)} keys, in none of versions {self.possible}")


def test_batches_are_whole_whatever_happens_to_their_worker(tmp_path: Path, full_battery: bool) -> None:
    lives, seed = 1000 if full_battery else 8, random.randrange(1 << 32)
    print(f"seed {seed}")
    path = tmp_path / "store.silt"
    options = siltstone.WorkerOptions(deadline=2.0)
    store = siltstone.open(path, workers=2, shards=SHARDS, worker=options, **SMALL)
    numbers = np.arange(4000)
    owners = router_of(store).shards_of(2, hashes(numbers))
    # Short batches, which wait for others on their way, and long ones.
    callers = [
        Batches(numbers[owners == shard][start : start + count].tolist())
        for shard in range(SHARDS)
        for start, count in ((0, 20), (20, 600))
    ]
    over = threading.Event()

    def work(caller: Batches, chance: random.Random) -> None:
        while not over.is_set():
            for _put in range(chance.randrange(1, 6)):
                caller.put(store, batched=chance.random() < 0.5)
            caller.flush(store)

    chance = random.Random(seed)
    with ThreadPoolExecutor(len(callers)) as pool:
        working = [
            pool.submit(work, caller, random.Random(seed + number)) for number, caller in enumerate(callers)
        ]

        def have_flushed(before: list[int]) -> bool:
            for each in working:
                if each.done():
                    each.result()
            return all(caller.flushes > count + 1 for caller, count in zip(callers, before, strict=True))

        def strike(worker: int, number: signal.Signals) -> None:
            pid = store.workers()[worker].pid
            if pid is None:
                return
            try:
                kill(pid, number)
            except ProcessLookupError:
                return
            # Noticed as well: else the next life would begin before this one has ended.
            until(lambda: store.workers()[worker].pid != pid, "it is gone, or its deadline ended it")
            assert not is_running(pid)

        try:
            for life in range(lives):
                until(lambda: all_serve(store), f"all serve before life {life} ends")
                flushes = [caller.flushes for caller in callers]
                until(lambda before=flushes: have_flushed(before), f"everybody flushed in life {life}")
                worker = chance.randrange(2)
                strike(worker, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
                if chance.random() < 0.3:
                    # Its successor too, at any moment of its start.
                    until(lambda one=worker: store.workers()[one].pid is not None, "another is started")
                    strike(worker, signal.SIGKILL)
        finally:
            over.set()
        for each in working:
            each.result(PATIENCE_S)
    until(lambda: all_serve(store), "all serve in the end")
    for caller in callers:
        caller.check(store)
    assert sum(caller.doubts for caller in callers) > 0
    store._core.abandon()
    with siltstone.open(path, workers=0) as again:
        for caller in callers:
            caller.check(again)


def test_a_close_in_the_middle_of_everything_ends(tmp_path: Path, full_battery: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    path = tmp_path / "store.silt"
    for _life in range(300 if full_battery else 6):
        store = siltstone.open(
            path, workers=2, shards=SHARDS, worker=siltstone.WorkerOptions(deadline=2.0), **SMALL
        )
        began = threading.Barrier(5)

        def use(start: int, store: siltstone.Store = store, began: threading.Barrier = began) -> None:
            began.wait()
            try:
                for version in range(VERSIONS):
                    store.put_many(*rows(range(start, start + 300), version=version))
                    store.delete_many(hashes(range(start, start + 10)))
                    store.flush()
                    store.get_many(hashes(range(start, start + 300)))
                    len(store)
            except siltstone.errors.ClosedError:
                return
            except (OutcomeUnknownError, ShardAwayError):
                # Until the store is closed: then that is what is said.
                while True:
                    try:
                        store.flush()
                    except siltstone.errors.ClosedError:
                        return
                    except (OutcomeUnknownError, ShardAwayError):
                        continue

        with ThreadPoolExecutor(4) as pool:
            users = [pool.submit(use, start) for start in range(0, 4000, 1000)]
            began.wait()
            victims = [worker.pid for worker in store.workers() if chance.random() < 0.4]
            for pid in victims:
                if pid is not None:
                    kill(pid, chance.choice([signal.SIGKILL, signal.SIGSTOP]))
            try:
                store.close()
            except (OutcomeUnknownError, ShardAwayError):
                assert victims
            for each in users:
                each.result(PATIENCE_S)
    siltstone.open(path, workers=0).close()
