"""A worker process that takes what it is sent and says nothing, and what is put to it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from worker_stores import Readers

from siltstone_workers import process
from siltstone_workers.gathering import Batch
from siltstone_workers.ledger import Ledger
from siltstone_workers.process import WorkerProcess
from siltstone_workers.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

#: takes everything from its first pipe and says nothing, until that ends
LISTENER = "import os, sys\nwhile os.read(int(sys.argv[1]), 1 << 20): pass"


class Interruptible(Sender):
    """A sender of which writes, or waits for a full pipe, do what a test wants."""

    #: called before each write, each wait
    before_write: Callable[[], None] | None = None
    before_wait: Callable[[], None] | None = None

    def write(self, pieces: list[Any], messages: int) -> None:
        if self.before_write is not None:
            self.before_write()
        super().write(pieces, messages)

    def wait_writable(self) -> None:
        if self.before_wait is not None:
            self.before_wait()
        super().wait_writable()


def interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def listening(
    monkeypatch: pytest.MonkeyPatch, shards: int = 1, ledger: type[Ledger] = Ledger
) -> Iterator[WorkerProcess]:
    def start(pipes: list[int], inherited: Sequence[int], *_path: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", LISTENER, *map(str, pipes)], pass_fds=(*pipes, *inherited)
        )

    monkeypatch.setattr(process, "_start", start)
    monkeypatch.setattr(process, "Sender", Interruptible)
    ledgers = {shard: ledger(shard, Readers()) for shard in range(shards)}  # type: ignore[arg-type]
    worker = WorkerProcess(0, 20.0, [], ledgers)
    try:
        # Everything fits: nobody waits for an answer.
        worker.requests.hear(1, [[shard, 0, 1 << 40, 1 << 40] for shard in ledgers])
        yield worker
    finally:
        assert worker.end("the test is over", 20.0)
        worker.release()


def batch(worker: WorkerProcess, size: int, shard: int = 0) -> Batch:
    return Batch(worker.ledgers[shard], np.zeros(size, np.uint8), 1)


def try_append(worker: WorkerProcess, size: int, shard: int = 0) -> bool:
    return worker.requests.try_append(*batch(worker, size, shard))


def sender(worker: WorkerProcess) -> Interruptible:
    found = worker.requests.sender
    assert isinstance(found, Interruptible)
    return found


def append(worker: WorkerProcess, size: int) -> None:
    assert worker.requests.append_one(batch(worker, size)) is None


def found(worker: WorkerProcess, shard: int = 0) -> set[int]:
    """Sequences of what readers find on its way."""
    return worker.ledgers[shard].pending.found  # type: ignore[attr-defined,no-any-return]
