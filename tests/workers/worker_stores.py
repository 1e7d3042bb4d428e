"""Stores with worker processes for tests: their processes and shards, and what a caller may be told and find."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from store_records import digest, hashes, info

from siltstone.errors import OutcomeUnknownError, ShardAwayError
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import siltstone

SMALL = {"erase_block": 64 * 1024}
#: what waits for something that other processes do gives up after this [s]
PATIENCE_S = 60.0
#: beyond its deadline a call may take what a loaded machine needs to end a process and start another [s]
SLACK_S = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds; a failure that says what did not come about, after all patience."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.001)


@contextmanager
def ends_within(deadline: float) -> Iterator[None]:
    """Fail where the block takes much longer than a deadline: it hung, and something else woke it."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < deadline + SLACK_S, f"{took:.1f} s"


def settle(store: siltstone.Store) -> None:
    """Hear what was lost, once: after that a flush flushes."""
    try:
        store.flush()
    except OutcomeUnknownError:
        store.flush()


# ---- shards


def router_of(store: siltstone.Store) -> Router:
    """What says which shard a key is in, made from what the store says of itself."""
    told = store.info()
    return Router(KeyTypes({2: (0, 32)}), bytes.fromhex(told.uuid.replace("-", "")), told.shards)


def keys_of(store: siltstone.Store, worker: int, workers: int, count: int) -> list[int]:
    """Numbers of records that belong to the shards of one worker."""
    numbers = np.arange(count * workers * 4)
    shards = router_of(store).shards_of(2, hashes(numbers))
    return numbers[shards % workers == worker][:count].tolist()


# ---- processes


def pids(store: siltstone.Store) -> list[int]:
    return [worker.pid for worker in store.workers() if worker.pid is not None]


def all_serve(store: siltstone.Store) -> bool:
    return all(worker.state == "serving" for worker in store.workers())


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers_of(parent: int) -> list[int]:
    """Processes that were started as workers of a process, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "siltstone_workers" in command and command[-1] == str(parent):
            found.append(process.pid)
    return found


def shared_memory() -> list[str]:
    """Memory without a name that this process has descriptors of."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("/memfd:siltstone"):
            found.append(target)
    return found


def leave_in_a_change(store: siltstone.Store) -> None:
    """Leave the index of the only shard as a worker does that was stopped while it moved slots."""
    place = store._core.shards._keepers[0].place
    memory = memoryview(place._memory.map_index(0, writable=True)).cast("B")
    # The sequence number of every segment, made odd: 32 bytes a segment, behind header, journals and tail.
    at = 4096 + 64 * 1024 + 4096
    for segment in range(place._memory.sizes[0].segments):
        memory[at + 32 * segment] |= 1


# ---- what is on its way


class Readers:
    """What readers find that is on its way."""

    def __init__(self) -> None:
        self.found: set[int] = set()

    def add(self, sequence: int, _stream: Any) -> None:
        self.found.add(sequence)

    def cancel(self, sequence: int) -> None:
        self.found.discard(sequence)

    def retire(self, sequence: int) -> None:
        self.found = {each for each in self.found if each > sequence}


# ---- what a caller is told


@dataclass
class Told:
    """What one caller was told of its keys, and so which versions it may find.

    :param keys: its own, nobody else's
    """

    keys: range
    possible: dict[int, set[int | None]] = field(init=False)
    #: what was put since the last flush, and not called into doubt since
    unflushed: dict[int, int | None] = field(default_factory=dict)
    version: int = 0
    flushes: int = 0
    unknown: int = 0

    def __post_init__(self) -> None:
        self.possible = {key: {None} for key in self.keys}

    def put(self, store: siltstone.Store, key: int) -> None:
        """Put a version that was never put before."""
        self.version += 1
        self._do(key, self.version, lambda: store.put(info(key, version=self.version)))

    def delete(self, store: siltstone.Store, key: int) -> None:
        self._do(key, None, lambda: store.delete(digest(key)))

    def _do(self, key: int, version: int | None, call: Callable[[], object]) -> None:
        try:
            call()
        except OutcomeUnknownError:
            self.unknown += 1
            self.possible[key].add(version)
            self.unflushed.pop(key, None)
        except ShardAwayError:
            pass  # nothing was done
        else:
            self.possible[key].add(version)
            self.unflushed[key] = version

    def flush(self, store: siltstone.Store) -> None:
        """Flush: what it covers has one version then; where it failed, what was put may be there or not."""
        try:
            store.flush()
        except (OutcomeUnknownError, ShardAwayError):
            self.unknown += 1
        else:
            self.flushes += 1
            for key, version in self.unflushed.items():
                self.possible[key] = {version}
        self.unflushed.clear()

    def check(self, store: siltstone.Store, *, away: bool = True) -> None:
        """Every key has a version that it may have; with `away` a shard may also be away."""
        for key, versions in self.possible.items():
            try:
                found = store.get(digest(key))
            except ShardAwayError:
                assert away
                continue
            if found is None:
                assert None in versions, (key, versions)
            else:
                assert any(
                    version is not None and found == info(key, version=version) for version in versions
                ), (key, found, versions)
