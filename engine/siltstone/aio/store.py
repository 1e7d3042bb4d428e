"""A store whose calls are awaited: on the loop what is done in microseconds, on threads what may wait."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from siltstone.aio.commits import Commits
from siltstone.aio.threads import Threads
from siltstone.errors import ClosedError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from siltstone.core.batch import Batch
    from siltstone.core.info import StoreInfo
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.store import Store

#: rows up to which a call is over sooner than a thread would begin with it
_ROWS_HERE_MAX = 64
#: the loop that runs on this thread, or None: asyncio exports it for what is called too often for an exception
_running_loop = asyncio._get_running_loop
#: calls that wait for the medium at a time, beside the flush
_THREADS = 4


class AsyncStore:
    """A :class:`siltstone.Store` for the tasks of one event loop. Made by :func:`siltstone.aio.open`.

    Puts and deletes are seen by every later get of any task at once, and are durable when a :meth:`flush` that
    was called after them returns. Calls from another loop, or from none, raise StateError: other threads use
    :attr:`sync`. Cancelling a call ends the waiting for it; what a thread has begun runs to its end, so that
    what a cancelled call was to put or delete may be there or not.

    :param store: open; closed with this one
    :param flusher: one thread of its loop, for flushes
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, flusher: Threads) -> None:
        self._store = store
        self._loop = loop
        self._flusher = flusher
        # Flushes have a thread to themselves: they must not queue behind large batches.
        self._threads = Threads(loop, "siltstone-aio", _THREADS)
        self._commits = Commits(loop, flusher, store.flush_only)
        #: whether other processes are waited for, however little is asked
        self._waits = store.waits_for_others
        # How many losses a task has been told of, or had nothing to do with.
        self._told: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._closing: asyncio.Future[None] | None = None
        self._close_errors: list[BaseException] = []

    # ---- putting

    async def put(self, record: Any) -> None:
        """Put one record of any registered entry type; the last one put under a key wins. Not durable yet."""
        store = self._open()
        self._count_losses(store)
        if not store.try_put(record):
            await self._threads.run(store.put, record)

    async def put_many(self, *columns: ArrayLike, entry_type: str | None = None) -> None:
        """Put n records, given as one array a field, as :meth:`siltstone.Store.put_many`. Not durable yet.

        The arrays must stay as they are until this returns; where it is cancelled, for longer than can be known.
        """
        store = self._open()
        self._count_losses(store)
        if columns and _is_short(columns[0]) and not self._waits:
            store.put_many(*columns, entry_type=entry_type)
        else:
            await self._threads.run(lambda: store.put_many(*columns, entry_type=entry_type))

    # ---- asking

    async def get(self, key: Buffer, *, entry_type: str | None = None) -> Any:
        """The record last put under `key`, or None."""
        return self._open().get(key, entry_type=entry_type)

    async def get_many(self, keys: ArrayLike, *, entry_type: str | None = None) -> tuple[NDArray[Any], ...]:
        """Look up n keys at once: (found, one array for each field that is not the key).

        As :meth:`siltstone.Store.get_many`. The keys must stay as they are until this returns.
        """
        store = self._open()
        if _is_short(keys):
            return store.get_many(keys, entry_type=entry_type)
        return await self._threads.run(lambda: store.get_many(keys, entry_type=entry_type))

    # ---- deleting

    async def delete(self, key: Buffer, *, entry_type: str | None = None) -> bool:
        """Delete what was put under `key`; whether there was anything. Not durable yet."""
        store = self._open()
        self._count_losses(store)
        if self._waits:
            return await self._threads.run(lambda: store.delete(key, entry_type=entry_type))
        return store.delete(key, entry_type=entry_type)

    async def delete_many(self, keys: ArrayLike, *, entry_type: str | None = None) -> NDArray[np.bool_]:
        """Delete what was put under n keys; for which there was anything, as (n,) bool. Not durable yet.

        The keys must stay as they are until this returns.
        """
        store = self._open()
        self._count_losses(store)
        if _is_short(keys) and not self._waits:
            return store.delete_many(keys, entry_type=entry_type)
        return await self._threads.run(lambda: store.delete_many(keys, entry_type=entry_type))

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[Batch]:
        """A context whose puts and deletes become visible, and durable, all or none per shard.

        They are gathered by plain calls, without await, and applied when the block ends without an error; they
        are forgotten when it ends with one. BatchTooLargeError where what one shard would get does not fit a
        journal; nothing is applied then.
        """
        store = self._open()
        self._count_losses(store)
        batch = store.batch()
        try:
            yield batch
        except BaseException as error:
            batch.__exit__(type(error), error, None)
            raise
        self._open()
        await self._threads.run(batch.__exit__, None, None, None)

    # ---- durability and life

    async def flush(self) -> None:
        """Return once all that was put or deleted before this call is durable.

        Tasks that flush at the same time share one flush of the medium, which begins after the last of them
        called. After an error, which each of them gets, nothing that was not flushed before may be taken for
        durable. Losses are told as :meth:`siltstone.Store.flush` tells them, to each task once.
        """
        store = self._open()
        self._count_losses(store)
        errors = await self._commits.ask()
        if errors:
            raise errors.pop()
        if self._waits and self._closing is None:
            task = asyncio.current_task()
            error = store.loss_since(self._told.get(task, store.losses_told))
            if error is not None:
                self._told[task] = store.losses_told
                raise error

    async def pack(self) -> None:
        """Free the space of what was overwritten or deleted, now; see :meth:`siltstone.Store.pack`."""
        store = self._open()
        await self._threads.run(store.pack)

    async def incarnate(self) -> None:
        """Turn everything into hash stores, now; see :meth:`siltstone.Store.incarnate`."""
        store = self._open()
        await self._threads.run(store.incarnate)

    async def close(self) -> None:
        """Flush, mark the store as cleanly closed, and give up its volume. Closing twice is allowed.

        Flushes that were asked for before are served; other calls under way finish or raise ClosedError. What
        failed is raised once. Where this is cancelled the store is closed all the same.
        """
        self._check_loop()
        if self._closing is None:
            self._closing = self._loop.create_future()
            # The flusher does one thing after another: first the flush for those who wait already.
            self._commits.begin()
            self._flusher.submit(self._closed, self._store.close)
            self._flusher.stop()
            self._threads.stop()
        # Not the future itself: a task that is cancelled would cancel it for the others.
        await asyncio.wait((self._closing,))
        if self._close_errors:
            raise self._close_errors.pop()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- facts

    @property
    def sync(self) -> Store:
        """The plain store underneath, for other threads; its calls block."""
        return self._store

    @property
    def read_only(self) -> bool:
        """Whether nothing can be put; the reason is in `read_only_reason`."""
        return self._store.read_only

    @property
    def read_only_reason(self) -> str:
        """Why the store is open for reading only, or ""."""
        return self._store.read_only_reason

    @property
    def recovery(self) -> tuple[JournalRecovery, ...]:
        """What opening found in each journal that was active: where it ends, what was cut, and why."""
        return self._store.recovery

    async def info(self) -> StoreInfo:
        """The store in figures, as it is now."""
        return await self._threads.run(self._open().info)

    async def count(self) -> int:
        """Keys in the store."""
        store = self._open()
        return await self._threads.run(lambda: len(store))

    def __repr__(self) -> str:
        return f"<AsyncStore of {self._store!r}>"

    # ---- inside

    def _count_losses(self, store: Store) -> None:
        """From now on the running task is one of those who are told of losses."""
        if self._waits:
            task = asyncio.current_task()
            if task not in self._told:
                self._told[task] = store.losses_told

    def _check_loop(self) -> None:
        if _running_loop() is not self._loop:
            raise StateError(
                f"{self!r} belongs to the event loop that opened it: use its `sync` elsewhere",
                what="store",
                state="open in another event loop",
            )

    def _open(self) -> Store:
        # One test for the usual case: this comes before every put and get.
        if self._closing is not None or _running_loop() is not self._loop:
            self._check_loop()
            raise ClosedError(f"{self._store!r}: the store is closed", what="store")
        return self._store

    def _closed(self, _result: None, errors: list[BaseException]) -> None:
        self._close_errors = errors
        assert self._closing is not None
        self._closing.set_result(None)


def _is_short(rows: ArrayLike) -> bool:
    """Whether a call with so few rows is done sooner here than on a thread; what has no length is soon refused."""
    try:
        return len(rows) <= _ROWS_HERE_MAX  # type: ignore[arg-type]
    except TypeError:
        return True
