"""Answers in the core: they get to who asked, whatever becomes of the thread that reads them."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from interrupts import Anywhere
from pipe_pairs import PATIENCE_S, Task, ends

from siltstone.errors import ProtocolError, WorkerError
from siltstone_workers.answers import Answers
from siltstone_workers.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver
    from siltstone_workers.sender import Sender


class Told:
    """What a core was told of progress, and of rules that were broken."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, object]] = []
        self.broken: list[ProtocolError] = []
        self.raises: BaseException | None = None

    def hear(self, number: int, shards: object) -> None:
        self.heard.append((number, shards))
        if self.raises is not None:
            raise self.raises


class Interrupted:
    """A receiver; who reads from it first is interrupted."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.reading = receiver.reading
        self.interrupts = 0

    @property
    def has_buffered(self) -> bool:
        return self._receiver.has_buffered

    def receive(self, timeout: float) -> Message | None:
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return self._receiver.receive(timeout)


@contextmanager
def answering(interrupts: int = 0) -> Iterator[tuple[Sender, Answers, Told]]:
    told = Told()
    with ends() as both:
        receiver = Interrupted(both.receiver)
        receiver.interrupts = interrupts
        answers = Answers(receiver, -1, told.broken.append)  # type: ignore[arg-type]
        answers.heard = told.hear
        yield both.sender, answers, told


def test_an_interrupt_of_who_reads_takes_nothing_from_who_asked() -> None:
    with answering(interrupts=1) as (sender, answers, told):
        first, second = answers.expect(), answers.expect()
        sender.send([Kind.REPLY, second.request, None, 7, [[0, 1, 2, 3]]], b"second")
        sender.send([Kind.REPLY, first.request, None, 8, []], b"first")
        with pytest.raises(KeyboardInterrupt):
            answers.wait(first, PATIENCE_S)
        assert answers.wait(first, PATIENCE_S)
        # It came before.
        assert second.has_arrived
        assert bytes(second.bulk or b"") == b"second"
        assert told.heard == [(7, [[0, 1, 2, 3]]), (8, [])]
        assert not answers.expected


def test_who_waits_reads_on_after_who_read_was_interrupted() -> None:
    with answering(interrupts=1) as (sender, answers, _told):
        mine, other = answers.expect(), answers.expect()
        reading = Task(lambda: answers.wait(mine, PATIENCE_S))
        waiting = Task(lambda: answers.wait(other, PATIENCE_S))
        sender.send([Kind.REPLY, mine.request, None, 1, []])
        sender.send([Kind.REPLY, other.request, None, 2, []])
        outcomes = []
        for task in (reading, waiting):
            try:
                outcomes.append(task.result())
            except KeyboardInterrupt:
                outcomes.append("interrupted")
        # One of them read first; the other read on, at least to its own.
        assert outcomes.count("interrupted") == 1
        assert outcomes.count(True) == 1


@pytest.mark.parametrize("refusal", [None, ["DiskFullError", "no space", {}]])
def test_an_interrupt_anywhere_in_who_waits_costs_no_answer_and_no_news(refusal: object) -> None:
    told = Told()
    heard: dict[int, object] = {}
    with ends() as both:
        answers = Answers(both.receiver, -1, told.broken.append)
        answers.heard = heard.__setitem__
        for place in itertools.count(1):
            answer = answers.expect()
            both.sender.send([Kind.REPLY, answer.request, refusal, place, [[0, place, 2, 3]]], b"bulk")
            was_interrupted = Anywhere(place).while_(lambda answer=answer: answers.wait(answer, PATIENCE_S))
            # What is not there yet has not been read.
            assert answers.wait(answer, 0.0)
            assert (answer.refusal, bytes(answer.bulk or b"")) == (refusal, b"bulk")
            assert heard == {place: [[0, place, 2, 3]]}
            heard.clear()
            if not was_interrupted:
                break


def test_an_answer_with_news_that_break_a_rule_is_none() -> None:
    with answering() as (sender, answers, told):
        answer = answers.expect()
        told.raises = ProtocolError("no news", rule="progress", value=None)
        sender.send([Kind.REPLY, answer.request, None, 1, []])
        assert not answers.wait(answer, 0.0)
        assert [each.rule for each in told.broken] == ["progress"]
        answers.end(lambda: WorkerError("it is gone"))
        assert answers.wait(answer, 0.0)
        assert type(answer.error) is WorkerError
        with pytest.raises(WorkerError):
            answers.expect()


def test_an_answer_that_nobody_asked_for_breaks_a_rule() -> None:
    with answering() as (sender, answers, told):
        answer = answers.expect()
        sender.send([Kind.REPLY, answer.request + 1, None, 1, []])
        assert not answers.wait(answer, 0.0)
        assert [each.rule for each in told.broken] == ["answers"]


def test_who_waits_reads_on_after_who_read_has_waited_long_enough() -> None:
    with answering() as (sender, answers, _told):
        first, second = answers.expect(), answers.expect()
        reading = Task(lambda: answers.wait(first, 0.3))
        waiting = Task(lambda: answers.wait(second, PATIENCE_S))
        assert not reading.result()
        sender.send([Kind.REPLY, second.request, None, 1, []])
        assert waiting.result()


def test_an_end_while_answers_arrive_is_one_for_all() -> None:
    """Whoever reads takes answers from those that are expected while the end goes through them."""
    with answering() as (sender, answers, _told):
        mine, late, *others = (answers.expect() for _ in range(5))
        reading = Task(lambda: answers.wait(mine, PATIENCE_S))
        deadline = time.monotonic() + PATIENCE_S

        def gone() -> WorkerError:
            if not late.has_arrived:
                sender.send([Kind.REPLY, late.request, None, 1, []], b"late")
                while not late.has_arrived:
                    assert time.monotonic() < deadline, "nobody reads"
                    time.sleep(0.001)
            return WorkerError("it is gone")

        # The reader gets to the pipe before it ends for him.
        sender.send([Kind.REPLY, others.pop().request, None, 1, []])
        until_read(answers, 4)
        answers.end(gone)
        assert reading.result()
        assert bytes(late.bulk or b"") == b"late"
        assert [type(each.error) for each in (mine, *others)] == [WorkerError] * 3
        assert not answers.expected


def until_read(answers: Answers, left: int) -> None:
    """Return once so many answers are expected no longer than that."""
    deadline = time.monotonic() + PATIENCE_S
    while len(answers.expected) > left:
        assert time.monotonic() < deadline
        time.sleep(0.001)
