"""Group commit: many threads that ask for a flush, one flush of the medium for all of them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: after which a thread looks for itself whether it is still waited for: an interrupt may have kept others from
#: telling it [s]
_LOOK_SECONDS: Final = 1.0


class GroupCommit:
    """Serves all threads that ask while one flush is under way by the next one.

    One of them runs that; the others sleep, each on a lock of its own, until it has ended. On one lock for all they
    would pass one by one, each after a switch of threads, and flush again what those in front have put meanwhile.

    :param flush: the blocking call. What it raises goes to the thread that ran it, and the others then call it
        themselves, one after another
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._leading = threading.Lock()
        #: numbers of the last flush that began, and of the last that ended well; changed by who leads
        self._begun = self._ended = 0
        #: held locks of those who sleep
        self._asleep: deque[threading.Lock] = deque()

    def ask(self) -> None:
        """Return when a flush that began after this call has ended well, run by this thread or another."""
        begun = self._begun
        served: list[threading.Lock] = []
        try:
            while self._leading.locked():
                self._sleep()
                if self._ended > begun:
                    return
            with self._leading:
                # Others may have led while this thread woke up.
                if self._ended > begun:
                    return
                self._begun += 1
                number = self._begun
                served += (self._asleep.popleft() for _ in range(len(self._asleep)))
                self._flush()
                self._ended = number
        finally:
            # Whoever leads next first: its flush and what those who were served do next run side by side.
            self._wake_next()
            for each in served:
                each.release()

    def _sleep(self) -> None:
        mine = threading.Lock()
        mine.acquire()
        self._asleep.append(mine)
        woken = False
        try:
            # Whoever leads has either not looked yet who sleeps, or is gone.
            while self._leading.locked() and not woken:
                woken = mine.acquire(timeout=_LOOK_SECONDS)
        finally:
            if not woken:
                # Unless it was just chosen to lead, which it then does, or passes on.
                with contextlib.suppress(ValueError):
                    self._asleep.remove(mine)

    def _wake_next(self) -> None:
        """Wake the one that sleeps longest, so that it leads, unless somebody does already, who will do this then."""
        if self._asleep and not self._leading.locked():
            try:
                next_one = self._asleep.popleft()
            except IndexError:
                return  # somebody else was faster
            next_one.release()
