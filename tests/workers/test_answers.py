"""Answers in the core: they get to who asked, whatever becomes of the thread that reads them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pipe_pairs import PATIENCE_S, Task, ends

from siltstone.errors import ProtocolError, WorkerError
from siltstone_workers.answers import Answers
from siltstone_workers.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone_workers.sender import Sender


class Told:
    """What a core was told of progress, and of rules that were broken; it may be interrupted where it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, object]] = []
        self.broken: list[ProtocolError] = []
        self.raises: BaseException | None = None

    def hear(self, number: int, shards: object) -> None:
        self.heard.append((number, shards))
        error, self.raises = self.raises, None
        if error is not None:
            raise error


@contextmanager
def answering() -> Iterator[tuple[Sender, Answers, Told]]:
    told = Told()
    with ends() as both:
        yield both.sender, Answers(both.receiver, -1, told.hear, told.broken.append), told


def test_an_interrupt_of_who_reads_takes_nothing_from_who_asked() -> None:
    with answering() as (sender, answers, told):
        first, second = answers.expect(), answers.expect()
        sender.send([Kind.REPLY, second.request, None, 7, [[0, 1, 2, 3]]], b"second")
        sender.send([Kind.REPLY, first.request, None, 8, []], b"first")
        told.raises = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            answers.wait(first, PATIENCE_S)
        # It came before the interrupt.
        assert second.has_arrived
        assert bytes(second.bulk or b"") == b"second"
        assert answers.wait(first, PATIENCE_S)
        assert told.heard == [(7, [[0, 1, 2, 3]]), (8, [])]
        assert not answers.expected


def test_who_waits_reads_on_after_who_read_was_interrupted() -> None:
    with answering() as (sender, answers, told):
        mine, other = answers.expect(), answers.expect()
        told.raises = KeyboardInterrupt()
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
        # One of them read, and was interrupted; unless that was the one who asked for it, the other got its own.
        assert outcomes.count("interrupted") == 1
        assert outcomes.count(True) == 1
        assert mine.has_arrived


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
