"""Group commit: many tasks that ask for a flush, one flush of the store for all of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from siltstone.aio.threads import Threads

_Waiting: TypeAlias = "asyncio.Future[list[BaseException]]"


class Commits:
    """Serves all who ask while one flush is under way, or in one turn of the loop, by the next flush.

    :param loop: whose tasks ask
    :param thread: one thread, which runs the flushes one after another
    :param flush: the blocking call; what it raises goes to every task of its group

    At most one flush is under way and one group gathers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: Threads, flush: Callable[[], None]) -> None:
        self._loop = loop
        self._thread = thread
        self._flush = flush
        self._gathering: list[_Waiting] = []
        self._is_flushing = False

    def ask(self) -> asyncio.Future[list[BaseException]]:
        """What to await: done when a flush that begins after this call is over.

        The result is empty, or has the error of that flush, in an instance of one's own. Cancelling the future ends
        the waiting of one task alone.
        """
        if not self._gathering and not self._is_flushing:
            # Behind all tasks that are ready to run: those that are about to ask share this flush.
            self._loop.call_soon(self.begin)
        # One each: a future that several tasks wait for is cancelled by the first that is.
        waiting: _Waiting = self._loop.create_future()
        self._gathering.append(waiting)
        return waiting

    def begin(self) -> None:
        """Let a flush serve those who have gathered; at once, or behind the one that is under way."""
        group, self._gathering = self._gathering, []
        if not group:
            return
        self._is_flushing = True

        def end(_result: None, errors: list[BaseException]) -> None:
            self._is_flushing = False
            for waiting in group:
                if not waiting.done():
                    waiting.set_result([_own(error) for error in errors] if errors else errors)
            if self._gathering:
                # Behind the tasks that were just served: what they put and flush next goes along.
                self._loop.call_soon(self.begin)

        self._thread.submit(end, self._flush)


def _own(error: BaseException) -> BaseException:
    """An error of the same class and facts, without the traceback, which every raising makes longer."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - one of a plugin's, which cannot be copied, is still to be told
        return error
