"""A medium whose transfers wait, at the threads of asynchronous stores, until a test lets them go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import siltstone.aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from store_faults import Faults

FLUSHER = "siltstone-aio-flush"
THREADS = "siltstone-aio"


def open_faulty(path, faults: Faults, **options: Any) -> siltstone.aio.Opening:
    """A small store on a medium that does what `faults` says."""
    options = {"shards": 2, "erase_block": 64 * 1024} | options
    return siltstone.aio.open(f"faulty:{path}", plugins=faults.host(), **options)


class Gate:
    """A hook of a medium: transfers of threads with this name are counted, and wait where it is shut.

    Those of other threads, such as the housekeeper's, pass. `act` is done behind the gate.
    """

    def __init__(self, name: str, act: Callable[[int], None] = lambda _count: None) -> None:
        self.name = name
        self.count = 0
        self._act = act
        self._way = threading.Event()
        self._way.set()
        self._arrived = asyncio.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, *_transfer: Any) -> None:
        if threading.current_thread().name.startswith(self.name):
            self.count += 1
            loop = self._loop
            if loop is not None:
                loop.call_soon_threadsafe(self._arrived.release)
            self._way.wait()
            self._act(self.count)

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Let them wait until the block ends."""
        self._loop = asyncio.get_running_loop()
        self._way.clear()
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let all go on, also those that are still to come."""
        self._loop = None
        self._way.set()

    async def arrival(self) -> None:
        """Return when one more transfer has come to the gate while it was shut."""
        await self._arrived.acquire()


async def turns(count: int = 5) -> None:
    """Let every task that is ready run, and what those make ready."""
    for _ in range(count):
        await asyncio.sleep(0)


def threads_named(name: str = THREADS) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]
