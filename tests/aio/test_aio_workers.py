"""The asyncio store over worker processes: the same calls, and who is told of what was lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

import siltstone.aio
from siltstone import HashInfo
from siltstone.errors import OutcomeUnknownError, ShardAwayError

if TYPE_CHECKING:
    from pathlib import Path


def info(number: int) -> HashInfo:
    return HashInfo(hashlib.sha256(b"%d" % number).digest(), number, number)


async def until(condition) -> None:
    """Give way to others until something has come about; the test's own time limit ends it."""
    while not condition():
        await asyncio.sleep(0)


def test_every_call_works_over_workers(tmp_path: Path) -> None:
    async def work() -> None:
        async with siltstone.aio.open(tmp_path / "store.silt", workers=2) as store:
            await asyncio.gather(*(store.put(info(number)) for number in range(300)))
            assert await store.get(info(7).hash) == info(7)
            await store.flush()
            assert await store.count() == 300
            assert await store.delete(info(7).hash) is True
            assert await store.get(info(7).hash) is None
            keys = np.frombuffer(b"".join(info(number).hash for number in range(300)), np.uint8).reshape(
                -1, 32
            )
            found, _physical, _logical = await store.get_many(keys)
            assert found.sum() == 299
            assert (await store.delete_many(keys[:10])).sum() == 9
            async with store.batch() as batch:
                batch.put(info(1000))
            assert await store.get(info(1000).hash) == info(1000)
            assert (await store.info()).records == 291

    asyncio.run(work())


def test_each_task_that_put_is_told_of_a_loss_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with siltstone.aio.open(tmp_path / "store.silt", workers=1) as store:
            # Nothing reaches the medium before the worker dies.
            both_have_put = asyncio.Barrier(3)
            killed = asyncio.Event()

            async def one(number: int) -> list[bool]:
                await store.put(info(number))
                await both_have_put.wait()
                await killed.wait()
                told = []
                for _flush in range(3):
                    try:
                        await store.flush()
                    except OutcomeUnknownError:
                        told.append(True)
                    else:
                        told.append(False)
                return told

            tasks = [asyncio.create_task(one(number)) for number in range(2)]
            await both_have_put.wait()
            os.kill(store.sync.workers()[0].pid, signal.SIGKILL)
            await until(lambda: store.sync.losses == 1)
            await until(lambda: store.sync.workers()[0].state == "serving")
            killed.set()
            assert await asyncio.gather(*tasks) == [[True, False, False]] * 2
            # Who came later has lost nothing.
            await store.put(info(5))
            await store.flush()

    asyncio.run(work())


def test_a_put_to_a_shard_that_is_away_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        async with siltstone.aio.open(tmp_path / "store.silt", workers=1) as store:
            await store.put(info(1))
            await store.flush()
            pid = store.sync.workers()[0].pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: store.sync.workers()[0].pid != pid)
            if store.sync.workers()[0].state != "serving":
                with pytest.raises(ShardAwayError):
                    await store.put(info(2))
            await until(lambda: store.sync.workers()[0].state == "serving")
            assert await store.get(info(1).hash) == info(1)
            await store.put(info(2))
            await store.flush()

    asyncio.run(work())
