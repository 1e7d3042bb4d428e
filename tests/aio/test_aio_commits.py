"""Group commit: one flush for all who ask together, none for who asks too late, and each with an error of its own."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from held_medium import FLUSHER, Gate, open_faulty, turns
from store_faults import input_output_error
from store_records import assert_holds, info

import siltstone
from siltstone.errors import MediumError, PoisonedError

TASKS = 50


async def put_and_flush(store, number):
    await store.put(info(number))
    await store.flush()


def test_tasks_that_flush_together_share_one_flush(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        async with open_faulty(path, faults) as store:
            before = gate.count
            await asyncio.gather(*(put_and_flush(store, number) for number in range(TASKS)))
            assert gate.count == before + 1

    asyncio.run(main())


def test_tasks_that_flush_again_and_again_stay_together(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def one(store, numbers):
        for number in numbers:
            await put_and_flush(store, number)

    async def main():
        async with open_faulty(path, faults) as store:
            before = gate.count
            await asyncio.gather(*(one(store, range(start, 500, TASKS)) for start in range(TASKS)))
            assert gate.count == before + 500 // TASKS

    asyncio.run(main())


def test_a_flush_under_way_covers_nobody_who_comes_later(path, faults):
    gate = faults.flush = Gate(FLUSHER)
    counts = []

    async def late(store, number):
        await put_and_flush(store, number)
        counts.append(gate.count)

    async def main():
        async with open_faulty(path, faults) as store:
            before = gate.count
            with gate.shut():
                first = asyncio.create_task(put_and_flush(store, 0))
                await gate.arrival()
                others = [asyncio.create_task(late(store, number)) for number in range(1, TASKS)]
                await turns()
                assert gate.count == before + 1
                assert not any(task.done() for task in (first, *others))
            await asyncio.gather(first, *others)
            # One flush for all of those who waited, and it began after the first one had ended.
            assert counts == [before + 2] * (TASKS - 1)

    asyncio.run(main())


def test_who_was_served_goes_along_with_those_who_wait(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def twice(store):
        await put_and_flush(store, 0)
        await put_and_flush(store, 1)

    async def main():
        async with open_faulty(path, faults) as store:
            before = gate.count
            with gate.shut():
                first = asyncio.create_task(twice(store))
                await gate.arrival()
                others = [asyncio.create_task(put_and_flush(store, number)) for number in range(2, TASKS)]
                await turns()
            await asyncio.gather(first, *others)
            assert gate.count == before + 2

    asyncio.run(main())


def test_what_was_put_before_a_flush_is_in_what_it_wrote(path, faults):
    async def main():
        async with open_faulty(path, faults) as store:
            await asyncio.gather(*(put_and_flush(store, number) for number in range(TASKS)))
            # As it lies on the medium now: nothing is added by the close.
            shutil.copy(path, path.with_suffix(".copy"))

    asyncio.run(main())
    with siltstone.open(path.with_suffix(".copy"), read_only=True) as copy:
        assert_holds(copy, range(TASKS))


# ---- cancellation


@pytest.mark.parametrize("cancelled", [0, 1, TASKS - 1], ids=["under way", "first waiting", "last waiting"])
def test_a_task_that_is_cancelled_disturbs_nobody(path, faults, cancelled):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        async with open_faulty(path, faults) as store:
            before = gate.count
            with gate.shut():
                tasks = [asyncio.create_task(put_and_flush(store, 0))]
                await gate.arrival()
                tasks += [asyncio.create_task(put_and_flush(store, number)) for number in range(1, TASKS)]
                await turns()
                tasks[cancelled].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[cancelled]
                assert [task.done() for task in tasks].count(True) == 1
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(outcomes.pop(cancelled), asyncio.CancelledError)
            assert outcomes == [None] * (TASKS - 1)
            assert gate.count == before + 2

    asyncio.run(main())


def test_a_flush_that_takes_too_long_for_one_task_ends_for_the_others(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        async with open_faulty(path, faults) as store:
            with gate.shut():
                patient = asyncio.create_task(put_and_flush(store, 0))
                await gate.arrival()
                with pytest.raises(TimeoutError):
                    # The gate opens when this is over, so that it is always too short.
                    await asyncio.wait_for(put_and_flush(store, 1), 0.001)
                assert not patient.done()
            await patient
            await store.flush()

    asyncio.run(main())


def test_when_everybody_has_gone_the_next_one_is_served_all_the_same(path, faults):
    gate = faults.flush = Gate(FLUSHER)

    async def main():
        async with open_faulty(path, faults) as store:
            with gate.shut():
                tasks = [asyncio.create_task(put_and_flush(store, 0))]
                await gate.arrival()
                tasks.append(asyncio.create_task(put_and_flush(store, 1)))
                await turns()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await put_and_flush(store, 2)

    asyncio.run(main())


# ---- errors


def test_every_task_of_a_flush_that_fails_gets_an_error_of_its_own(path, faults):
    def fail(_count):
        raise input_output_error("flush")

    async def main():
        # With more shards only those that had something to lose would be poisoned.
        store = await open_faulty(path, faults, shards=1)
        gate = faults.flush = Gate(FLUSHER, fail)
        outcomes = await asyncio.gather(
            *(put_and_flush(store, number) for number in range(TASKS)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [MediumError] * TASKS
        assert len({id(outcome) for outcome in outcomes}) == TASKS
        assert {str(outcome) for outcome in outcomes} == {str(input_output_error("flush"))}
        assert all(outcome.operation == "flush" for outcome in outcomes)
        assert gate.count == 1
        # As in the plain store: a flush is not tried again.
        with pytest.raises(PoisonedError):
            await store.flush()
        with pytest.raises(PoisonedError):
            await store.close()

    asyncio.run(main())


def test_the_error_of_one_flush_is_not_that_of_the_next_group(path, faults):
    def fail(_count):
        raise input_output_error("flush")

    async def main():
        # With more shards only those that had something to lose would be poisoned.
        store = await open_faulty(path, faults, shards=1)
        gate = faults.flush = Gate(FLUSHER, fail)
        with gate.shut():
            first = asyncio.create_task(put_and_flush(store, 0))
            await gate.arrival()
            second = asyncio.create_task(put_and_flush(store, 1))
            await turns()
        with pytest.raises(MediumError):
            await first
        with pytest.raises(PoisonedError):
            await second
        with pytest.raises(PoisonedError):
            await store.close()

    asyncio.run(main())


class Stubborn(RuntimeError):
    """An error of somebody else's that cannot be copied."""

    def __init__(self, *, reason):
        super().__init__(reason)


def test_an_error_that_cannot_be_copied_is_told_to_everybody_too(path, faults):
    def fail(count):
        if count == 1:
            raise Stubborn(reason="no")

    async def main():
        async with open_faulty(path, faults) as store:
            faults.flush = Gate(FLUSHER, fail)
            outcomes = await asyncio.gather(
                *(put_and_flush(store, number) for number in range(3)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [Stubborn] * 3
            await store.flush()

    asyncio.run(main())
