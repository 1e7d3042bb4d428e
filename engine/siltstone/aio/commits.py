"""Group commit: many tasks that ask for a flush, one flush of the store for all of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from siltstone.aio.threads import Threads

_Waiting: TypeAlias = "asyncio.Future[BaseException | None]"


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

    async def wait(self) -> None:
        """Return when a flush that began after this call is over; raise its error, in an instance of one's own.

        Cancelling this ends the waiting of one task alone.
        """
        if not self._gathering and not self._is_flushing:
            # Behind all tasks that are ready to run: those that are about to ask share this flush.
            self._loop.call_soon(self.begin)
        # One each: a future that several tasks wait for is cancelled by the first that is.
        waiting: _Waiting = self._loop.create_future()
        self._gathering.append(waiting)
        error = await waiting
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback holds this frame: a circle, and both would stay until the collector comes.
                del error, waiting

    def begin(self) -> None:
        """Let a flush serve those who have gathered; at once, or behind the one that is under way."""
        group, self._gathering = self._gathering, []
        if not group:
            return
        self._is_flushing = True

        def end(_result: None, error: BaseException | None) -> None:
            self._is_flushing = False
            for waiting in group:
                if not waiting.done():
                    waiting.set_result(_own(error))
            if self._gathering:
                # Behind the tasks that were just served: what they put and flush next goes along.
                self._loop.call_soon(self.begin)

        self._thread.submit(self._flush, (), end)


def _own(error: BaseException | None) -> BaseException | None:
    """An error of the same class and facts, without the traceback, which every raising makes longer."""
    if error is None:
        return None
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - one of a plugin's, which cannot be copied, is still to be told
        return error
