"""Whose loop a store is, and how it ends: nothing hangs, nothing stays, nothing is lost without a word."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
from held_medium import FLUSHER, THREADS, Gate, open_faulty, threads_named, turns
from store_faults import input_output_error
from store_records import assert_holds, digest, info, rows

import siltstone
import siltstone.aio
from siltstone.errors import ClosedError, EntryError, LockedError, MediumError, StateError


def calls_of(store):
    async def batch():
        async with store.batch() as gathered:
            gathered.put(info(1))

    async def enter():
        async with store:
            pass

    return [
        store.put(info(0)),
        store.put_many(*rows(range(100))),
        store.get(digest(0)),
        store.get_many(rows(range(100))[0]),
        store.delete(digest(0)),
        store.delete_many(rows(range(100))[0]),
        store.flush(),
        store.info(),
        store.count(),
        batch(),
        enter(),
    ]


# ---- loops and threads


def test_another_loop_is_refused(path):
    async def main():
        store = await siltstone.aio.open(path)

        async def elsewhere():
            for call in (*calls_of(store), store.close()):
                with pytest.raises(StateError, match="event loop"):
                    await call

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        thread.join()
        assert await store.count() == 0
        await store.close()

    asyncio.run(main())


def test_a_loop_after_that_of_the_store_is_refused(path):
    async def main():
        return await siltstone.aio.open(path)

    store = asyncio.run(main())

    async def later():
        with pytest.raises(StateError):
            await store.put(info(0))

    asyncio.run(later())
    store.sync.close()


def test_no_loop_is_refused(path):
    async def main():
        return await siltstone.aio.open(path)

    store = asyncio.run(main())
    for call in calls_of(store):
        with pytest.raises(StateError, match="event loop"):
            call.send(None)
    store.sync.close()


def test_other_threads_use_the_plain_store_underneath(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            thread = threading.Thread(target=store.sync.put, args=(info(0),))
            thread.start()
            thread.join()
            assert await store.get(digest(0)) == info(0)

    asyncio.run(main())


# ---- closing


def test_after_the_close_every_call_says_so(path):
    async def main():
        store = await siltstone.aio.open(path)
        await store.close()
        await store.close()
        for call in calls_of(store):
            with pytest.raises(ClosedError):
                await call

    asyncio.run(main())


def test_a_close_is_clean(path):
    async def main():
        async with siltstone.aio.open(path) as store:
            await store.put(info(0))

    asyncio.run(main())
    with siltstone.open(path) as store:
        assert store.info().clean
        assert_holds(store, [0])


def test_flushes_that_were_asked_for_before_a_close_are_served(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        store = await open_faulty(path, faults)
        with gate.shut():
            await store.put(info(0))
            flushes = [asyncio.create_task(store.flush())]
            await gate.arrival()
            await store.put(info(1))
            flushes += [asyncio.create_task(store.flush()) for _ in range(3)]
            await turns()
            closes = [asyncio.create_task(store.close()) for _ in range(2)]
            await turns()
            assert not any(task.done() for task in (*flushes, *closes))
            with pytest.raises(ClosedError):
                await store.flush()
        assert await asyncio.gather(*flushes, *closes) == [None] * 6

    asyncio.run(main())


def test_a_flush_and_a_close_in_one_turn(path):
    async def main():
        store = await siltstone.aio.open(path)
        await store.put(info(0))
        assert await asyncio.gather(store.flush(), store.close(), store.close()) == [None] * 3

    asyncio.run(main())


def test_calls_under_way_finish_or_say_that_it_is_closed(path, faults):
    async def main():
        store = await open_faulty(path, faults)
        gate = faults.write = Gate(THREADS)
        with gate.shut():
            # More than there are threads for.
            calls = [
                asyncio.create_task(store.put_many(*rows(range(start, start + 1000))))
                for start in range(0, 8000, 1000)
            ]
            await gate.arrival()
            close = asyncio.create_task(store.close())
            await turns()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await close
        assert {type(outcome) for outcome in outcomes} <= {type(None), ClosedError}
        return [outcome is None for outcome in outcomes]

    put = asyncio.run(main())
    with siltstone.open(path) as store:
        for number, done in enumerate(put):
            if done:
                assert_holds(store, range(1000 * number, 1000 * number + 1000))


def test_a_call_that_is_cancelled_ends_its_waiting_and_nothing_else(path, faults):
    async def main():
        unhandled = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: unhandled.append(what))
        before = threads_named()
        store = await open_faulty(path, faults)
        gate = faults.write = Gate(THREADS)
        with gate.shut():
            call = asyncio.create_task(store.put_many(*rows(range(1000))))
            await gate.arrival()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await store.flush()
        threads = [thread for thread in threads_named() if thread not in before]
        await store.close()
        for thread in threads:
            thread.join()
        await turns()
        assert not unhandled

    asyncio.run(main())


def test_a_close_that_is_cancelled_goes_on(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        store = await open_faulty(path, faults)
        await store.put(info(0))
        with gate.shut():
            first, second = asyncio.create_task(store.close()), asyncio.create_task(store.close())
            await gate.arrival()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert not second.done()
        await second
        with siltstone.open(path) as again:
            assert_holds(again, [0])

    asyncio.run(main())


def test_the_error_of_a_close_is_raised_once(path, faults):
    def fail(_count):
        raise input_output_error("flush")

    async def main():
        store = await open_faulty(path, faults)
        await store.put(info(0))
        faults.flush = Gate(FLUSHER, fail)
        outcomes = await asyncio.gather(store.close(), store.close(), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [MediumError, type(None)]
        await store.close()

    asyncio.run(main())


def test_its_threads_end_with_it(path):
    async def main():
        before = threads_named()
        async with siltstone.aio.open(path) as store:
            await store.put_many(*rows(range(1000)))
            threads = [thread for thread in threads_named() if thread not in before]
        assert len(threads) == 2
        for thread in threads:
            thread.join()

    asyncio.run(main())


def test_an_error_that_was_caught_holds_nothing(path):
    async def main():
        before = threads_named()
        store = await siltstone.aio.open(path)
        keys = np.zeros((300, 5), np.uint8)
        kept = weakref.ref(keys)
        gc.disable()
        try:
            with contextlib.suppress(EntryError):
                await store.get_many(keys)
            del keys
            threads = [thread for thread in threads_named() if thread not in before]
            await store.close()
            for thread in threads:
                thread.join()
            # Without the collector of circles.
            assert kept() is None
        finally:
            gc.enable()

    asyncio.run(main())


# ---- opening


def test_the_threads_of_a_store_that_is_forgotten_end(path):
    async def main():
        before = threads_named()
        store = await siltstone.aio.open(path)
        await store.put_many(*rows(range(1000)))
        store.sync.close()
        del store
        gc.collect()
        return [thread for thread in threads_named() if thread not in before]

    for thread in asyncio.run(main()):
        thread.join()


def test_what_was_opened_for_a_cancelled_task_is_closed(path, faults):
    gate = faults.read = Gate(FLUSHER)

    async def main():
        before = threads_named()
        with gate.shut():
            opening = asyncio.ensure_future(open_faulty(path, faults))
            await gate.arrival()
            (thread,) = (thread for thread in threads_named() if thread not in before)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            with pytest.raises(LockedError):
                siltstone.open(path)
        thread.join()
        siltstone.open(path).close()

    siltstone.open(path).close()
    asyncio.run(main())


def test_an_opening_that_fails_leaves_nothing(path):
    async def main():
        before = threads_named()
        with siltstone.open(path):
            with pytest.raises(LockedError):
                await siltstone.aio.open(path)
            for thread in threads_named():
                if thread not in before:
                    thread.join()

    asyncio.run(main())


# ---- the end of the interpreter


@pytest.mark.parametrize("last", ["pass", "asyncio.create_task(store.flush()); await asyncio.sleep(0)"])
def test_an_interpreter_ends_with_a_store_still_open(path, last):
    script = f"""
        import asyncio, threading
        import siltstone.aio
        from siltstone import HashInfo

        async def main():
            global store
            store = await siltstone.aio.open({str(path)!r})
            await store.put(HashInfo(bytes(32), 8, 64))
            await store.flush()
            assert await store.get_many([bytes(32)] * 1000)
            {last}

        asyncio.run(main())
        print([thread.name for thread in threading.enumerate() if not thread.daemon])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "['MainThread']\n", "")
    with siltstone.open(path) as store:
        assert store.get(bytes(32)) == siltstone.HashInfo(bytes(32), 8, 64)
