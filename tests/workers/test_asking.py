"""Asking a worker: what a send that fails or is interrupted leaves behind in the core. This worker only listens."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from siltstone.errors import OutcomeUnknownError
from siltstone_workers import process, sender
from siltstone_workers.gathering import Batch
from siltstone_workers.ledger import Ledger
from siltstone_workers.messages import Kind, News, ShardProgress
from siltstone_workers.process import WorkerProcess
from siltstone_workers.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: takes everything from its first pipe and says nothing, until that ends
LISTENER = "import os, sys\nwhile os.read(int(sys.argv[1]), 1 << 20): pass"


class Nobody:
    """Readers that nobody is."""

    def add(self, *_what: Any) -> None:
        pass

    cancel = retire = add


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    def start(pipes: list[int], inherited: Sequence[int], *_path: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", LISTENER, *map(str, pipes)], pass_fds=(*pipes, *inherited)
        )

    monkeypatch.setattr(process, "_start", start)
    ledger = Ledger(0, Nobody())  # type: ignore[arg-type]
    worker = WorkerProcess(0, 20.0, [], {0: ledger})
    try:
        # Everything fits: nobody waits for an answer.
        worker.hear(News(1, [ShardProgress(0, 0, 1 << 40, 1 << 40)]))
        yield worker
    finally:
        assert worker.end("the test is over", 20.0)
        worker.release()


def append(worker: WorkerProcess, size: int) -> None:
    assert worker.append_one(Batch(worker.ledgers[0], np.zeros(size, np.uint8), 1)) is None


def test_an_interrupt_between_parts_keeps_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_self: Sender, _pieces: Any) -> int:
        raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        window = worker._requests.window
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "_write", write)
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    append(worker, 2 * window)
                with pytest.raises(KeyboardInterrupt):
                    worker.delete(0, 2, np.zeros((window, 1), np.uint8))
        # As much as ever: this would wait for what nobody gives back.
        append(worker, window // 2)
        assert worker.cause == ""


def test_an_interrupt_inside_a_message_ends_the_worker_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def writev(_descriptor: int, _pieces: Any) -> int:
        raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(sender.os, "writev", writev)
            with pytest.raises(KeyboardInterrupt):
                append(worker, 1 << 20)
        # Nothing can be sent to it any more: it must not stay, asked again and again.
        with pytest.raises(OutcomeUnknownError):
            worker.ask(Kind.FLUSH)
        assert worker.wait(20.0)
        assert "not sent whole" in worker.cause


def test_an_interrupt_that_keeps_back_what_was_acknowledged_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(_self: WorkerProcess, _size: int) -> None:
        raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        append(worker, 100)
        # This one waits for others, and was acknowledged.
        append(worker, 100)
        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "_take_credit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                worker.ask(Kind.FLUSH)
        # A flush of a worker that never had it must not return well; that it is lost is told.
        assert worker.wait(20.0)
        assert worker.sent > worker.flushed
        with pytest.raises(OutcomeUnknownError):
            append(worker, 1 << 20)
