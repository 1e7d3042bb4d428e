"""The ledger: what surely fits does so behind all that is under way; readers find what was sent until it is indexed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from worker_stores import Readers

from siltstone_workers.ledger import Ledger

SIZES = st.integers(0, 60)
RECORDS = st.integers(0, 6)


def stream(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


class LedgerAndWorker(RuleBasedStateMachine):
    """A ledger and a worker that deals with what it was sent, in order, and tells so, now and then out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.visible = Readers()
        self.ledger = Ledger(3, self.visible)  # type: ignore[arg-type]
        #: sent and not dealt with, as far as was told
        self.under_way: list[tuple[int, int, int]] = []
        self.shown: set[int] = set()
        self.room = self.records = 0
        self.news = self.newest = 0
        self.late: list[tuple[int, tuple[int, int, int]]] = []

    @rule(size=SIZES, records=RECORDS, cancelled=st.booleans())
    def send(self, size: int, records: int, cancelled: bool) -> None:
        sure = self.ledger.surely_fits(size, records)
        if sure:
            assert sum(each[1] for each in self.under_way) + size <= self.room
            assert sum(each[2] for each in self.under_way) + records <= self.records
        sequence = self.ledger.next_sequence()
        self.ledger.send(sequence, stream(size), records, visible=sure)
        assert not self.under_way or sequence > self.under_way[-1][0]
        self.under_way.append((sequence, size, records))
        if cancelled:
            # It may have been sent all the same: it still counts.
            self.ledger.cancel(sequence)
        elif sure:
            self.shown.add(sequence)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), room=st.integers(0, 300), records=st.integers(0, 30), late=st.booleans())
    def progress(self, data: Any, room: int, records: int, late: bool) -> None:
        done = data.draw(st.integers(0, len(self.under_way) - 1))
        sequence = self.under_way[done][0]
        self.news += 1
        told = (sequence, room, records)
        if late:
            self.late.append((self.news, told))
            return
        self.newest = self.news
        self.ledger.progress(self.news, *told)
        self.under_way = self.under_way[done + 1 :]
        self.shown = {each for each in self.shown if each > sequence}
        self.room, self.records = room, records

    @precondition(lambda self: self.late and self.late[0][0] < self.news)
    @rule()
    def late_news(self) -> None:
        number, told = self.late.pop(0)
        if any(later < number for later, _told in self.late):
            return
        self.ledger.progress(number, *told)
        if number > self.newest:
            self.newest = number
            sequence, self.room, self.records = told
            self.under_way = [each for each in self.under_way if each[0] > sequence]
            self.shown = {each for each in self.shown if each > sequence}

    @rule()
    def refused(self) -> None:
        self.ledger.nothing_fits()
        self.room = 0

    @invariant()
    def sums_are_right(self) -> None:
        assert self.ledger.queued_bytes == sum(each[1] for each in self.under_way)
        assert self.visible.found == self.shown

    @invariant()
    def what_surely_fits_does(self) -> None:
        size_left = self.room - sum(each[1] for each in self.under_way)
        records_left = self.records - sum(each[2] for each in self.under_way)
        for size, records in ((0, 0), (max(size_left, 0), max(records_left, 0)), (1, 0), (0, 1)):
            assert self.ledger.surely_fits(size, records) == (size <= size_left and records <= records_left)
        assert not self.ledger.surely_fits(max(size_left, 0) + 1, 0)
        assert not self.ledger.surely_fits(0, max(records_left, 0) + 1)


TestLedger = LedgerAndWorker.TestCase


def test_nothing_surely_fits_before_the_worker_said_anything() -> None:
    ledger = Ledger(0, Readers())  # type: ignore[arg-type]
    assert not ledger.surely_fits(1, 1)
    ledger.progress(1, 0, 10, 1)
    assert ledger.surely_fits(10, 1)
    assert not ledger.surely_fits(11, 1)
    assert not ledger.surely_fits(10, 2)


@pytest.mark.parametrize("number", [1, 2])
def test_older_news_change_nothing(number: int) -> None:
    ledger = Ledger(0, Readers())  # type: ignore[arg-type]
    ledger.progress(3, 0, 10, 10)
    ledger.send(ledger.next_sequence(), stream(5), 1, visible=True)
    ledger.progress(number, 1, 1000, 1000)
    assert ledger.queued_bytes == 5
    assert not ledger.surely_fits(6, 1)


@pytest.mark.parametrize("dealt_with", range(0, 20, 3))
def test_however_many_are_under_way_each_counts_until_it_was_dealt_with(dealt_with: int) -> None:
    ledger = Ledger(0, Readers())  # type: ignore[arg-type]
    sent = []
    for size in range(100):
        if size == 20:
            ledger.progress(1, dealt_with, 0, 0)
        sequence = ledger.next_sequence()
        ledger.send(sequence, stream(size), 1, visible=True)
        sent.append((sequence, size))
    for number, (done, _size) in enumerate(sent[dealt_with:], 2):
        assert ledger.queued_bytes == sum(size for sequence, size in sent if sequence >= done)
        ledger.progress(number, done, 0, 0)
    assert ledger.queued_bytes == 0
