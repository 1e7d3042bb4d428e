"""Several locks at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

_Answer = TypeVar("_Answer")

#: shards that do something together: each lock that is held is a call in another
TOGETHER_MAX: Final = 64


def holding(locks: Sequence[threading.Lock], act: Callable[[], _Answer]) -> _Answer:
    """Do `act` while these locks are held, taken in this order.

    One `with` in another, and no ExitStack: that leaves a lock held for ever where an interrupt comes between its
    steps, which are Python.
    """
    if not locks:
        return act()
    with locks[0]:
        return holding(locks[1:], act)
