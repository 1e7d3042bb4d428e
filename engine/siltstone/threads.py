"""Threads, and a clear error where the system allows no more of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from siltstone.errors import StateError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")
_R = TypeVar("_R")


def start_thread(thread: threading.Thread) -> None:
    """Start it; StateError where the system allows no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _refused(thread.name, error) from error


def map_in_threads(act: Callable[[_T], _R], items: Sequence[_T], threads: int) -> list[_R]:
    """What `act` returns for each item, in as many threads at once; the first error is raised when all have ended.

    One thread is this one: what is short would only wait for its turn. StateError as in :func:`start_thread`.
    """
    if threads == 1 or len(items) == 1:
        return [act(item) for item in items]
    with ThreadPoolExecutor(threads, "siltstone-pool") as pool:
        try:
            running = [pool.submit(act, item) for item in items]
        except RuntimeError as error:
            raise _refused("siltstone-pool", error) from error
        return [each.result() for each in running]


def _refused(name: str, error: RuntimeError) -> StateError:
    return StateError(f"thread {name} could not be started: {error}", what=name, state="not started")
