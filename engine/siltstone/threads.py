"""Threads, and a clear error where the system allows no more of them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from siltstone.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")
_R = TypeVar("_R")


class Wakeup:
    """Lets one thread sleep until another has something for it.

    Its steps are compiled. Those of threading.Event are not: an interrupt in the middle of one leaves a lock held, and
    whoever tells or sleeps after that hangs.
    """

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tell(self) -> None:
        """Let the thread wake up, or not sleep the next time."""
        if self._told.empty():
            self._told.put(None)

    def wait(self, seconds: float) -> bool:
        """Sleep until something was told since the last time, at most so many seconds; whether there was."""
        try:
            self._told.get(timeout=seconds)
        except queue.Empty:
            return False
        return True


def start_thread(thread: threading.Thread) -> None:
    """Start it; StateError where the system allows no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _refused(thread.name, error) from error


def map_in_threads(act: Callable[[_T], _R], items: Sequence[_T], threads: int) -> list[_R]:
    """What `act` returns for each item, in as many threads at once; the first error is raised when all have ended.

    One of them is this one, and it goes on with fewer where the system allows no more.
    """
    left = deque(enumerate(items))
    done: dict[int, _R] = {}
    failed: dict[int, BaseException] = {}

    def work() -> None:
        while True:
            try:
                number, item = left.popleft()
            except IndexError:
                return
            try:
                done[number] = act(item)
            except BaseException as error:  # noqa: BLE001 - raised by whoever asked, once all have ended
                failed[number] = error
                if not isinstance(error, Exception):
                    # ^C, or the end of the process: what has not begun is left.
                    left.clear()

    others: list[threading.Thread] = []
    try:
        while len(others) + 1 < min(threads, len(items)):
            other = threading.Thread(target=work, name="siltstone-pool")
            try:
                other.start()
            except RuntimeError:
                break
            others.append(other)
        work()
    finally:
        # An interrupt may have come outside of `act`, too.
        left.clear()
        for other in others:
            other.join()
    if failed:
        raise failed.pop(min(failed))
    return [done[number] for number in range(len(items))]


def _refused(name: str, error: RuntimeError) -> StateError:
    return StateError(f"thread {name} could not be started: {error}", what=name, state="not started")
