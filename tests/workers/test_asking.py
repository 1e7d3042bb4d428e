"""Asking a worker: what a send that fails or is interrupted leaves behind in the core. This worker only listens."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from listening_worker import append, batch, found, interrupt, listening, sender, try_append
from worker_stores import ends_within

from siltstone.errors import OutcomeUnknownError
from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind
from siltstone_workers.ledger import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_an_interrupt_between_parts_keeps_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch) as worker:
        window = worker.requests.credit.window
        sender(worker).before_write = interrupt
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                append(worker, 2 * window)
            with pytest.raises(KeyboardInterrupt):
                worker.requests.delete(0, 2, np.zeros((window, 1), np.uint8))
        sender(worker).before_write = None
        # As much as ever: this would wait for what nobody gives back.
        append(worker, window // 2)
        assert worker.cause == ""


def test_an_interrupt_inside_a_message_ends_the_worker_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch) as worker:
        # So that the pipe fills.
        os.kill(worker.pid, signal.SIGSTOP)
        sender(worker).before_wait = interrupt
        with pytest.raises(KeyboardInterrupt):
            append(worker, 2 << 20)
        # Nothing can be sent to it any more: it must not stay, asked again and again.
        with pytest.raises(OutcomeUnknownError):
            worker.requests.ask(Kind.FLUSH)
        assert worker.wait(20.0)
        assert "not sent whole" in worker.cause


def test_an_interrupt_keeps_nothing_back_that_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(*_what: Any) -> None:
        raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        requests = worker.requests
        append(worker, 100)
        # This one waits for others, and was acknowledged.
        append(worker, 100)
        left = requests.credit.left
        assert requests.credit.take(left, 0.0)
        before = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                requests.ask(Kind.FLUSH)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert requests.credit.left == 0
        requests.credit.give(left)
        assert worker.cause == ""
        assert requests.sent > worker.flushed
        # It waits on, and goes with what is asked next.
        assert requests.outbox.bytes == 100
        requests.ask(Kind.FLUSH)
        assert requests.outbox.bytes == 0
        assert requests.credit.left == left - credit_of(100)


def test_what_went_before_an_interrupted_message_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([True, True])

    def third() -> None:
        if not next(left, False):
            raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        append(worker, 100)
        append(worker, 100)  # it waits
        credit = worker.requests.credit.left
        sender(worker).before_write = third
        with pytest.raises(KeyboardInterrupt):
            append(worker, 500_000)
        sender(worker).before_write = None
        assert next(left, None) is None
        # Of two messages the first is there, a part of the second is not: the worker would take the first again for a
        # breach of rules.
        assert worker.requests.outbox.bytes == 0
        assert worker.requests.credit.left == credit - credit_of(100)


def test_credit_for_what_went_before_an_interrupted_message_is_not_given_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([True])

    def second() -> None:
        if not next(left, False):
            raise KeyboardInterrupt

    with listening(monkeypatch, shards=2) as worker:
        # Nothing surely fits there: that batch is waited for, and so has a message of its own.
        worker.requests.hear(2, [[1, 0, 0, 0]])
        credit = worker.requests.credit.left
        sender(worker).before_write = second
        with pytest.raises(KeyboardInterrupt):
            worker.requests.append([batch(worker, 5000), batch(worker, 400_000, shard=1)])
        # The worker gives it back once it has dealt with that.
        assert worker.requests.credit.left == credit - credit_of(5000)


# ---- what is asked while others hear news


class Refused(Ledger):
    """Right behind the first look another thread hears that nothing fits any more."""

    looks = 0

    def surely_fits(self, size: int, records: int) -> bool:
        fitted = super().surely_fits(size, records)
        self.looks += 1
        if self.looks == 1:
            self.nothing_fits()
        return fitted


def test_what_surely_fitted_when_it_was_looked_at_is_not_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listening(monkeypatch, ledger=Refused) as worker:
        assert try_append(worker, 100)
        # It returned as if it was put: so it must be found, and its failure, told to nobody, be told to a flush.
        assert found(worker) == {1}
        assert worker.requests.sent == 1
        assert not try_append(worker, 100)
        assert found(worker) == {1}


class Interrupted(Ledger):
    """That of shard 1 is interrupted where something is sent."""

    def send(self, sequence: int, stream: NDArray[np.uint8], records: int, visible: bool) -> None:
        if self.shard == 1:
            raise KeyboardInterrupt
        super().send(sequence, stream, records, visible)


def test_an_interrupt_between_batches_hides_none_that_will_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch, shards=2, ledger=Interrupted) as worker:
        # The worker has not told of this one: what comes next waits here.
        append(worker, 100)
        with pytest.raises(KeyboardInterrupt):
            worker.requests.append([batch(worker, 100), batch(worker, 100, shard=1)])
        # It will be sent with the next: so it stays found, and a flush has something to cover.
        assert found(worker) == {1, 2}
        assert found(worker, 1) == set()
        assert worker.requests.sent > worker.flushed


def test_a_try_waits_for_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch) as worker:
        append(worker, worker.requests.credit.window - 33_000)
        # These wait for company, and with one more there would be enough to send them.
        for _ in range(8):
            assert try_append(worker, 4000)
        with ends_within(0.0):
            assert not try_append(worker, 4000)
        assert worker.cause == ""
