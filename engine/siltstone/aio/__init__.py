"""The same store for asyncio: calls to await, none of which keeps the event loop waiting for a medium.

::

    import siltstone.aio
    from siltstone import HashInfo

    async with siltstone.aio.open("store.silt") as store:
        await store.put(HashInfo(hash=digest, physical_sect=8, first_logical_sect=64))
        await store.flush()  # tasks that flush at the same time share one flush of the medium
        info = await store.get(digest)
"""

from __future__ import annotations

from siltstone.aio.opening import Opening, open  # noqa: A004 - the front door's own name
from siltstone.aio.store import AsyncStore

__all__ = ["AsyncStore", "Opening", "open"]
