"""Opening a store for asyncio, by await or by async with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from siltstone.aio.store import AsyncStore
from siltstone.aio.threads import Threads
from siltstone.core.options import StoreOptions
from siltstone.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence
    from os import PathLike
    from types import TracebackType

    from siltstone.plugin.host import PluginHost
    from siltstone.plugin.hosting import WorkerOptions
    from siltstone.shard.replaying import ReplayProgress


def open(  # noqa: A001 - as a store is opened like a file
    target: str | PathLike[str],
    *,
    workers: int | None = None,
    worker: WorkerOptions | None = None,
    shards: int | None = None,
    read_only: bool | None = None,
    create: bool | None = None,
    index_memory: int | None = None,
    on_full: str | None = None,
    hash_stores_max: int | None = None,
    erase_block: int | None = None,
    force: Collection[str] | None = None,
    missing_types: str | None = None,
    unreadable_is_torn: bool | None = None,
    plugins_allow: Sequence[str] | None = None,
    backend_options: Mapping[str, Any] | None = None,
    progress: Callable[[ReplayProgress], None] | None = None,
    plugins: PluginHost | None = None,
) -> Opening:
    """Open the store at `target` for the running event loop: to be awaited, or used by ``async with``.

    The arguments are those of :func:`siltstone.open`, and so are the errors. The journals are replayed on a
    thread, which also calls `progress`. Cancelled, it raises at once, and the store is closed, and its lock
    given up, when it has been opened.
    """
    return Opening(
        target,
        workers=workers,
        worker=worker,
        shards=shards,
        read_only=read_only,
        create=create,
        index_memory=index_memory,
        on_full=on_full,
        hash_stores_max=hash_stores_max,
        erase_block=erase_block,
        force=force,
        missing_types=missing_types,
        unreadable_is_torn=unreadable_is_torn,
        plugins_allow=plugins_allow,
        backend_options=backend_options,
        progress=progress,
        plugins=plugins,
    )


class Opening:
    """What :func:`open` returns: await it once for the store, or use it once by ``async with``."""

    def __init__(self, target: str | PathLike[str], **options: Any) -> None:
        self._target = target
        self._options = options
        self._opened: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opened is not None
        await self._opened.close()

    async def _open(self) -> AsyncStore:
        loop = asyncio.get_running_loop()
        thread = Threads(loop, "siltstone-aio-flush", 1)
        opened: list[Store] = []
        try:
            await thread.run(lambda: opened.append(Store(StoreOptions.of(self._target, **self._options))))
        except BaseException:
            # Cancelled, it is opened all the same, and then has nobody but the same thread to close it.
            thread.submit(_told_to_nobody, _close_all, opened)
            thread.stop()
            raise
        return AsyncStore(opened[0], loop, thread)


def _close_all(stores: list[Store]) -> None:
    for store in stores:
        store.close()


def _told_to_nobody(_result: None, _errors: list[BaseException]) -> None:
    pass
