"""What wakes a thread is never left locked by an interrupt, wherever that comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interrupts import Anywhere, ends
from store_records import assert_holds, rows

import siltstone
from siltstone.threads import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_an_interrupt_while_something_is_told_leaves_nothing_locked() -> None:
    at = 1
    while True:
        wakeup = Wakeup()
        came = Anywhere(at).while_(wakeup.tell)
        assert ends(wakeup.tell)
        assert wakeup.wait(20)
        assert not wakeup.wait(0)
        if not came:
            break
        at += 1
    assert at > 2


def test_told_often_is_told_once() -> None:
    wakeup = Wakeup()
    for _ in range(1000):
        wakeup.tell()
    assert wakeup.wait(20)
    assert not wakeup.wait(0.001)


def test_an_interrupt_where_a_put_wakes_housekeeping_costs_no_later_call(tmp_path: Path) -> None:
    """A lock that it leaves held is met by every put that wakes it again, and by the close."""
    at = 1
    while True:
        store = siltstone.open(tmp_path / f"{at}.silt", workers=0, shards=1, erase_block=64 * 1024)
        group = store._core.shards.group  # type: ignore[union-attr]
        usual, came = group._wake, []

        def wake(usual: Callable[[], None] = usual, came: list[bool] = came, at: int = at) -> None:
            if came:
                usual()
            else:
                came.append(Anywhere(at).while_(usual))

        group._wake = wake
        put = 0
        while not came:
            store.put_many(*rows(range(put, put + 100)))
            put += 100
        more = range(put, put + 5000)
        assert ends(lambda store=store, more=more: store.put_many(*rows(more)))  # type: ignore[misc]
        assert ends(store.close)
        with siltstone.open(tmp_path / f"{at}.silt", workers=0) as store:
            assert_holds(store, range(put + 5000))
        if not came[0]:
            break
        at += 1
    assert at > 2
