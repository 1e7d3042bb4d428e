"""Credit: never more is taken than there is, who waits gets what is given, and an interrupt keeps nothing back."""

from __future__ import annotations

import itertools

import pytest
from interrupts import Anywhere
from pipe_pairs import PATIENCE_S, Task

from siltstone_workers.credit import Credit


def test_what_is_not_there_is_not_taken() -> None:
    credit = Credit(100)
    assert credit.take(60, 0.0)
    assert credit.left == 40
    assert not credit.take(41, 0.0)
    assert not credit.take(41, 0.01)
    assert credit.left == 40
    assert credit.take(40, 0.0)


def test_who_asks_for_more_than_there_ever_is_gets_all_there_is_and_owes_the_rest() -> None:
    credit = Credit(100)
    assert credit.take(250, 0.0)
    assert credit.left == -150
    assert not credit.take(1, 0.0)
    credit.give(250)
    assert credit.left == 100


def test_who_waits_gets_what_is_given() -> None:
    credit = Credit(100)
    assert credit.take(100, 0.0)
    waiting = Task(lambda: credit.take(50, PATIENCE_S))
    for _ in range(50):
        credit.give(1)
    assert waiting.result() is True
    assert credit.left == 0


def test_when_it_is_over_nobody_waits_and_nothing_is_taken() -> None:
    credit = Credit(100)
    assert credit.take(100, 0.0)
    waiting = Task(lambda: credit.take(1, PATIENCE_S))
    credit.end()
    assert waiting.result() is False
    credit.give(100)
    assert not credit.take(1, PATIENCE_S)


@pytest.mark.parametrize("given", [1, 3])
def test_an_interrupt_of_who_gives_keeps_nothing_back_and_nobody_waiting(given: int) -> None:
    for place in itertools.count(1):
        credit = Credit(100)
        assert credit.take(100, 0.0)
        waiting = Task(lambda credit=credit: credit.take(2 * given, PATIENCE_S))
        was_interrupted = Anywhere(place).while_(lambda credit=credit: credit.give(given))
        # All of it, or, where it had not begun, nothing.
        assert credit.left in ((given,) if not was_interrupted else (0, given))
        credit.give(2 * given - credit.left)
        assert waiting.result() is True
        if not was_interrupted:
            break
