"""A few threads of a store's own, for the calls that wait for a medium."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from siltstone.errors import StateError
from siltstone.threads import start_thread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")

#: Gets what a call returned, and what it raised: a list of one error, or an empty one. Whoever raises the error
#: takes it out: its traceback holds the frame that raised it, which would hold the error in turn.
Finish: TypeAlias = "Callable[[Any, list[BaseException]], None]"
_Job: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...], Finish]"


class Threads:
    """Runs calls in the order in which they are given, up to `limit` of them at a time.

    :param loop: where the results go
    :param name: of the threads
    :param limit: how many there may be; each starts when it is needed first

    Not the loop's own executor, which the caller may have filled. The threads are daemons: an interpreter
    that ends with a store still open does not wait for them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, limit: int) -> None:
        self._loop = loop
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._started = 0
        # Also for a store that nobody closed: its threads end when it is forgotten.
        self._end = weakref.finalize(self, _tell_to_end, self._jobs, limit)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the call returns, or raise what it raises, when it has run on a thread.

        Cancelling this ends the waiting alone: the call runs all the same.
        """
        # An error is a result, too: one that nobody waits for any more is no news.
        future: asyncio.Future[tuple[T, list[BaseException]]] = self._loop.create_future()

        def finish(result: T, errors: list[BaseException]) -> None:
            if not future.done():
                future.set_result((result, errors))

        self.submit(finish, function, *arguments)
        result, errors = await future
        if errors:
            raise errors.pop()
        return result

    def submit(self, finish: Finish, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a call on a thread, then `finish(result, errors)` on the loop, if that still runs."""
        if self._started < self._limit:
            name = f"{self._name}-{self._started + 1}"
            try:
                start_thread(
                    threading.Thread(target=_work, args=(self._loop, self._jobs), name=name, daemon=True)
                )
                self._started += 1
            except StateError:
                # Those that there are do it, one after the other.
                if not self._started:
                    raise
        self._jobs.put((function, arguments, finish))

    def stop(self) -> None:
        """Let the threads end after what was submitted; nothing may be submitted from here on."""
        self._end()


def _tell_to_end(jobs: queue.SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _work(loop: asyncio.AbstractEventLoop, jobs: queue.SimpleQueue[_Job | None]) -> None:
    while _do_next(loop, jobs):
        pass


def _do_next(loop: asyncio.AbstractEventLoop, jobs: queue.SimpleQueue[_Job | None]) -> bool:
    # A function of its own: a thread that waits for its next job must not hold what the last one used.
    job = jobs.get()
    if job is None:
        return False
    function, arguments, finish = job
    result, errors = _outcome(function, arguments)
    # A loop that was closed with the call under way has nobody who waits for it.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(finish, result, errors)
    return True


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, list[BaseException]]:
    # A frame of its own, which the traceback of the error keeps instead of one that knows who waits for it.
    try:
        return function(*arguments), []
    except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits for the call
        return None, [error]
