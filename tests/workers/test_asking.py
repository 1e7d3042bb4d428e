"""Asking a worker: what a send that fails or is interrupted leaves behind in the core. This worker only listens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from listening_worker import append, batch, found, listening
from worker_stores import ends_within

from siltstone.errors import OutcomeUnknownError
from siltstone_workers import sender
from siltstone_workers.credit import Credit
from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind
from siltstone_workers.ledger import Ledger
from siltstone_workers.sender import Sender


def test_an_interrupt_between_parts_keeps_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_self: Sender, *_what: Any) -> int:
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


def test_an_interrupt_keeps_nothing_back_that_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_what: Any) -> bool:
        raise KeyboardInterrupt

    with listening(monkeypatch) as worker:
        append(worker, 100)
        # This one waits for others, and was acknowledged.
        append(worker, 100)
        with monkeypatch.context() as patch:
            patch.setattr(Credit, "take", interrupt)
            with pytest.raises(KeyboardInterrupt):
                worker.ask(Kind.FLUSH)
        assert worker.cause == ""
        assert worker.sent > worker.flushed
        # It waits on, and goes with what is asked next.
        assert worker._outbox.bytes == 100
        credit = worker.credit.left
        worker.ask(Kind.FLUSH)
        assert worker._outbox.bytes == 0
        assert worker.credit.left == credit - credit_of(100)


def test_what_went_before_an_interrupted_message_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, left = Sender._write, iter([True, True])

    def write(self: Sender, *what: Any) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        usual(self, *what)

    with listening(monkeypatch) as worker:
        append(worker, 100)
        append(worker, 100)  # it waits
        credit = worker.credit.left
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "_write", write)
            with pytest.raises(KeyboardInterrupt):
                append(worker, 500_000)
        assert next(left, None) is None
        # Of two messages the first is there, a part of the second is not: the worker would take the first again for a
        # breach of rules.
        assert worker._outbox.bytes == 0
        assert worker.credit.left == credit - credit_of(100)


# ---- what is asked while others hear news


def test_what_surely_fitted_when_it_was_looked_at_is_not_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, looks = Ledger.surely_fits, iter([True])

    def fits(self: Ledger, size: int, records: int) -> bool:
        fitted = usual(self, size, records)
        if next(looks, False):
            # Right behind the look another thread hears that nothing fits any more.
            self.nothing_fits()
        return fitted

    with listening(monkeypatch) as worker:
        monkeypatch.setattr(Ledger, "surely_fits", fits)
        assert worker.try_append(batch(worker, 100))
        # It returned as if it was put: so it must be found, and its failure, told to nobody, be told to a flush.
        assert found(worker) == {1}
        assert worker.sent == 1
        assert not worker.try_append(batch(worker, 100))
        assert found(worker) == {1}


def test_an_interrupt_between_batches_hides_none_that_will_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch, shards=2) as worker:
        # The worker has not told of this one: what comes next waits here.
        append(worker, 100)
        usual = Ledger.send

        def send(self: Ledger, *what: Any, visible: bool) -> None:
            if self.shard == 1:
                raise KeyboardInterrupt
            usual(self, *what, visible=visible)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "send", send)
            with pytest.raises(KeyboardInterrupt):
                worker.append([batch(worker, 100), batch(worker, 100, shard=1)])
        # It will be sent with the next: so it stays found, and a flush has something to cover.
        assert found(worker) == {1, 2}
        assert found(worker, 1) == set()
        assert worker.sent > worker.flushed


def test_a_try_waits_for_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(monkeypatch) as worker:
        append(worker, worker._requests.window - 33_000)
        # These wait for company, and with one more there would be enough to send them.
        for _ in range(8):
            assert worker.try_append(batch(worker, 4000))
        with ends_within(0.0):
            assert not worker.try_append(batch(worker, 4000))
        assert worker.cause == ""
