"""Ctrl-C at any operation of the medium: the caller goes on with the store, or is refused; nothing told is lost."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from crash_states import crash_points
from journal_life import ViolationError
from medium import Image, LateInterrupt
from store_life import StoreLife, reopened
from store_operations import OPERATIONS

from siltstone.errors import SiltstoneError
from siltstone.format.constants import ERASE_BLOCK_MIN

if TYPE_CHECKING:
    from store_life import Told

EXTENTS = 10 * ERASE_BLOCK_MIN


def interrupted(name: str, number: int, kind: type[KeyboardInterrupt]) -> tuple[StoreLife, int] | None:
    """A store interrupted in operation `number` of what `name` does, and how many batches came before.

    None where `name` ended without so many operations.
    """
    life = StoreLife.formatted(Image.blank(EXTENTS))
    life.append()
    life.batch()
    life.flush()
    life.append()
    before = len(life.given[0])
    life.medium.failures[life.medium.operations + number] = kind()
    try:
        OPERATIONS[name](life)
    except KeyboardInterrupt:
        return life, before
    return None


def accepted(image: Image, told: Told, before: int | None) -> bool:
    """Whether the medium holds what was told, with the interrupted batch, number `before`, or without it."""
    if before is None:
        reopened(image, replace(told, operations=0))
        return True
    given, flushed = told.given[0], told.flushed[0]
    without = replace(
        told, given=((*given[:before], *given[before + 1 :]),), flushed=(flushed - (flushed > before),)
    )
    for known in (told, without):
        try:
            reopened(image, replace(known, operations=0))
        except ViolationError:
            continue
        return True
    return False


def go_on(life: StoreLife) -> None:
    """Write and flush if the store lets us; what it says it made durable is told."""
    for act in (life.append, life.flush, life.batch, life.flush):
        given = tuple(life.given)
        try:
            act()
        except SiltstoneError:
            life.given = list(given)
            life.told.append(replace(life.told[-1], operations=len(life.medium.log), given=given))
            return


@pytest.mark.parametrize("kind", [KeyboardInterrupt, LateInterrupt])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("close", "kill")])
def test_an_interrupt_in_the_middle(name, kind):
    for number in itertools.count():
        stopped = interrupted(name, number, kind)
        if stopped is None:
            return
        life, before = stopped
        unsure = before if name in ("append", "batch", "delete") else None
        first = len(life.medium.log)
        go_on(life)
        for point in crash_points(life.medium.start, life.medium.log, first):
            told = life.told_at(point.number)
            for image in (point.after_death(), point.after_power_cut([])):
                assert accepted(image, told, unsure), f"{name}, operation {number}, then {point.number}"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, LateInterrupt])
@pytest.mark.parametrize("name", ["close", "kill"])
def test_an_interrupt_while_it_is_closed_or_opened(name, kind):
    for number in itertools.count():
        stopped = interrupted(name, number, kind)
        if stopped is None:
            assert number > 3
            return
        life, _before = stopped
        left = life.medium.at_rest
        for image in (left, Image(left.durable)):
            reopened(image, replace(life.told[-1], operations=0))
