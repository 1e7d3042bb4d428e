"""Group commit: many threads that ask for a flush, one flush of the medium for all of them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from siltstone.errors import SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Callable

#: after which a thread looks for itself whether it is still waited for: an interrupt may have kept others from
#: telling it [s]
_LOOK_SECONDS: Final = 1.0


class _Sleeper:
    """A thread that sleeps until a flush has ended, or until it is its turn to run one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        #: what the flush that was for it raised
        self.error: SiltstoneError | None = None


class GroupCommit:
    """Serves all threads that ask while one flush is under way by the next one.

    One of them runs that; the others sleep, each on a lock of its own, until it has ended. On one lock for all they
    would pass one by one, each after a switch of threads, and flush again what those in front have put meanwhile.

    :param flush: the blocking call. A SiltstoneError that it raises is raised in all whom it was for
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._leading = threading.Lock()
        #: numbers of the last flush that began, and of the last that ended well; changed by who leads
        self._begun = self._ended = 0
        self._asleep: deque[_Sleeper] = deque()

    def ask(self) -> None:
        """Return when a flush that began after this call has ended well, run by this thread or another."""
        begun = self._begun
        served: list[_Sleeper] = []
        try:
            while self._leading.locked():
                error = self._sleep()
                if error is not None:
                    raise error
                if self._ended > begun:
                    return
            with self._leading:
                # Others may have led while this thread woke up.
                if self._ended > begun:
                    return
                self._begun += 1
                number = self._begun
                if self._asleep:
                    self._take_along(served)
                try:
                    self._flush()
                except SiltstoneError as error:
                    # Also told to the others: whoever asked again would stand behind those who ask all the time.
                    for each in served:
                        each.error = error.to_keep()
                    raise
                self._ended = number
        finally:
            # Whoever leads next first: its flush and what those who were served do next run side by side.
            if self._asleep:
                self._wake_next()
            for each in served:
                each.lock.release()

    def _take_along(self, served: list[_Sleeper]) -> None:
        """All who sleep by now; another thread may be waking one of them."""
        with contextlib.suppress(IndexError):
            served.extend(self._asleep.popleft() for _ in range(len(self._asleep)))

    def _sleep(self) -> SiltstoneError | None:
        """Sleep until somebody wakes this thread, which then looks what it has to do; the error that is its answer."""
        mine = _Sleeper()
        woken = False
        try:
            self._asleep.append(mine)
            # Whoever leads has either not looked yet who sleeps, or is gone.
            if self._leading.locked():
                woken = mine.lock.acquire(timeout=_LOOK_SECONDS)
        finally:
            if not woken:
                # Unless it was just chosen to lead, which it then does, or passes on.
                with contextlib.suppress(ValueError):
                    self._asleep.remove(mine)
        return mine.error

    def _wake_next(self) -> None:
        """Wake the one that sleeps longest, so that it leads, unless somebody does already, who will do this then."""
        if not self._leading.locked():
            with contextlib.suppress(IndexError):
                self._asleep.popleft().lock.release()
