"""The calls of the store for asyncio do what those of the plain one do, and leave the loop free meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading

import numpy as np
import pytest
from held_medium import THREADS, Gate, open_faulty
from store_records import digest, hashes, info, rows

import siltstone
import siltstone.aio
from siltstone.errors import EntryError, ForeignVolumeError, ReadOnlyError


def test_it_takes_the_arguments_of_the_plain_one():
    plain, here = inspect.signature(siltstone.open), inspect.signature(siltstone.aio.open)
    assert here.parameters == plain.parameters


def test_each_argument_arrives(path):
    async def main():
        async with siltstone.aio.open(path, shards=3, create=True) as store:
            assert (await store.info()).shards == 3
        with pytest.raises(siltstone.NotFoundError):
            await siltstone.aio.open(path.with_suffix(".other"), create=False)

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 64, 65, 5000])
def test_the_same_calls(path, count):
    async def main():
        store = await siltstone.aio.open(path)
        await store.put_many(*rows(range(count)))
        assert await store.count() == count
        found, physical, logical = await store.get_many(hashes(range(count + 1)))
        np.testing.assert_array_equal(found, [True] * count + [False])
        np.testing.assert_array_equal(physical[:-1], rows(range(count))[1])
        np.testing.assert_array_equal(logical[:-1], rows(range(count))[2])
        deleted = await store.delete_many(hashes(range(count - 1, 2 * count)))
        np.testing.assert_array_equal(deleted, [True] + [False] * count)
        assert await store.get(digest(count - 1)) is None
        await store.put(info(count))
        assert await store.get(digest(count)) == info(count)
        assert await store.delete(digest(count))
        assert not await store.delete(digest(count))
        await store.flush()
        await store.close()

    asyncio.run(main())


def test_a_put_is_seen_by_the_next_get_of_any_task(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            for number in range(100):
                await store.put(info(number))
                assert await asyncio.create_task(store.get(digest(number))) == info(number)

    asyncio.run(main())


def test_a_batch_is_applied_at_its_end(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            await store.put(info(0))
            async with store.batch() as batch:
                batch.put_many(*rows(range(1, 100)))
                batch.delete(digest(0))
                assert await store.count() == 1
            assert await store.count() == 99
            assert await store.get(digest(0)) is None

    asyncio.run(main())


def test_a_batch_whose_block_fails_is_forgotten(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            with pytest.raises(KeyError):
                async with store.batch() as batch:
                    batch.put(info(0))
                    raise KeyError
            assert await store.count() == 0

    asyncio.run(main())


def test_errors_are_those_of_the_plain_store(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            for keys in (np.zeros((3, 5), np.uint8), np.zeros((300, 5), np.uint8), 7):
                with pytest.raises(EntryError):
                    await store.get_many(keys)
            with pytest.raises(EntryError):
                await store.put_many()
        path.write_bytes(b"something else" * 1000000)
        with pytest.raises(ForeignVolumeError):
            await siltstone.aio.open(path)

    asyncio.run(main())


def test_facts_need_no_await(path):
    siltstone.open(path).close()

    async def main():
        async with siltstone.aio.open(path, read_only=True) as store:
            assert store.read_only
            assert store.read_only_reason == store.sync.read_only_reason != ""
            assert store.recovery == store.sync.recovery
            with pytest.raises(ReadOnlyError):
                await store.put(info(0))
            with pytest.raises(ReadOnlyError):
                await store.flush()
            with pytest.raises(ReadOnlyError):
                async with store.batch():
                    pass

    asyncio.run(main())


# ---- the loop goes on


def test_the_loop_goes_on_while_a_large_call_waits_for_the_medium(path, faults):
    async def main():
        async with open_faulty(path, faults) as store:
            await store.put(info(0))
            gate = faults.write = Gate(THREADS)
            with gate.shut():
                large = asyncio.create_task(store.put_many(*rows(range(1, 1000))))
                await gate.arrival()
                assert await store.get(digest(0)) == info(0)
                assert not large.done()
            await large
            assert await store.count() == 1000

    asyncio.run(main())


def test_the_executor_of_the_loop_may_be_busy(path):
    async def main():
        released = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, released.wait)
        try:
            async with siltstone.aio.open(path) as store:
                await store.put_many(*rows(range(1000)))
                await store.flush()
        finally:
            released.set()
            await busy

    asyncio.run(main())
