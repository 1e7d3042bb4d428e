"""What a worker answers a flush with, where an append that nobody waited for failed before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.errors import DiskFullError, MediumError, SiltstoneError
from siltstone_workers.errors import error_from_wire
from siltstone_workers.frames import unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.machine import WorkerMachine
from siltstone_workers.messages import Failures, ends_from_wire, failures_from_wire
from siltstone_workers.pipes import Message
from siltstone_workers.worker import Worker

if TYPE_CHECKING:
    from siltstone.shard.changes import JournalEnd


class Shards:
    """Shards that fail as they are told to."""

    def __init__(self) -> None:
        self.append_error: SiltstoneError | None = None
        self.flush_error: SiltstoneError | None = None
        self.shards = {0: self}
        self.room = 0
        self.store = self

    def append(self, _streams: Any) -> None:
        if self.append_error is not None:
            raise self.append_error

    def flush(self) -> None:
        if self.flush_error is not None:
            raise self.flush_error

    def end(self) -> tuple[JournalEnd, ...]:
        return ()


class Sent(list[tuple[list[Any], Any]]):
    """What the worker sent."""

    def send(self, fields: list[Any], bulk: Any = None) -> None:
        self.append((fields, bulk))


def serving(shards: Shards) -> tuple[Worker, Sent]:
    """A worker that serves these shards, without its process, and the answers that it sends."""
    worker, answers = object.__new__(Worker), Sent()
    machine = WorkerMachine((0,), 1 << 20)
    machine.receive(Message([Kind.RECOVER, 1, True], memoryview(b"superblock")))
    machine.receive(Message([Kind.SERVE, 2, []], None))
    worker._machine, worker._group = machine, shards  # type: ignore[assignment]
    worker._events, worker._answers = Sent(), answers  # type: ignore[assignment]
    worker._failures, worker._reports = Failures(), 0
    return worker, answers


def perform(worker: Worker, message: Message) -> None:
    for instruction in worker._machine.receive(message):
        worker._perform(instruction)


def test_a_failed_append_is_told_by_every_flush_that_succeeds_and_at_the_end() -> None:
    """An answer may reach nobody: of a caller that was interrupted, or at the end of the core's patience."""
    shards = Shards()
    worker, answers = serving(shards)
    perform(worker, Message([Kind.FLUSH, 2], None))
    shards.append_error = DiskFullError("no space for it")
    perform(worker, Message([Kind.APPEND, 0, [[0, 1, 1, 50]]], memoryview(np.zeros(50, np.uint8))))
    assert [fields[1] for fields, _bulk in answers] == [2]
    shards.flush_error = MediumError("the flush failed")
    perform(worker, Message([Kind.FLUSH, 3], None))
    shards.flush_error = None
    for request in (4, 5):
        perform(worker, Message([Kind.FLUSH, request], None))
    perform(worker, Message([Kind.END, 6], None))
    told = [
        (fields[1], None if fields[2] is None else error_from_wire(fields[2]).message, bulk)
        for fields, bulk in answers
    ]
    assert [(request, error) for request, error, _bulk in told] == [
        (2, None),
        (3, "the flush failed"),
        (4, None),
        (5, None),
        (6, None),
    ]
    assert [bulk for _request, _error, bulk in told[:2]] == [None, None]
    failures = [failures_from_wire(unpack_value(bulk)) for _request, _error, bulk in told[2:4]]
    failures.append(ends_from_wire(unpack_value(told[4][2]))[1])
    assert [(each.number, str(each.last)) for each in failures] == [(1, "no space for it")] * 3
