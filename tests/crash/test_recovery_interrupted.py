"""T4: a recovery that is cut off, at any operation and twice, is repeated and comes to the same."""

from __future__ import annotations

import pytest
from crash_states import crash_points
from medium import Crash, Image, Medium
from recovery_battery import ROOMY, TIGHT, WORKLOADS, RecoveryBattery, crash_loop
from store_life import StoreLife
from store_operations import OPERATIONS

NAMED = {f"{number}-{len(workload)}-operations": workload for number, workload in enumerate(WORKLOADS)}


@pytest.mark.parametrize("workload", NAMED.values(), ids=NAMED.keys())
def test_recovery_interrupted_twice(workload, full_battery):
    if full_battery:
        for seed in range(3):
            battery = RecoveryBattery(limit=6, nested=40, seed=seed)
            for shards, room in ((1, ROOMY), (2, ROOMY), (1, TIGHT)):
                battery.run(workload, shards, room)
    else:
        battery = RecoveryBattery(limit=1, nested=100)
        battery.run(workload, 1, ROOMY)
        if len(workload) < 10:
            battery.run(workload, 2, TIGHT)
    assert battery.states > 50


@pytest.mark.parametrize("workload", NAMED.values(), ids=NAMED.keys())
def test_every_operation_of_a_recovery_may_fail(workload):
    life = StoreLife.formatted(Image.blank(ROOMY))
    for name in workload:
        OPERATIONS[name](life)
    battery = RecoveryBattery(limit=1, nested=1)
    battery.fail(life.medium.at_rest, life.told[-1], " ".join(workload))
    assert battery.states > 3


@pytest.mark.parametrize("workload", [(), ("append",), ("append", "flush"), ("append", "delete", "note")])
def test_a_store_that_crashes_in_a_loop_does_not_eat_its_space(workload):
    sizes = crash_loop(25, workload)
    assert set(sizes[1:]) == {sizes[1]}


def test_a_process_that_dies_at_an_operation_leaves_what_the_states_start_from():
    """The batteries derive what a crash leaves from one log; here the process really stops."""
    life = StoreLife.formatted(Image.blank(ROOMY))
    for name in ("append", "batch", "flush", "batch"):
        OPERATIONS[name](life)
    start = life.medium.at_rest
    told = life.told[-1]
    whole = StoreLife(start, told)
    whole.open()
    for point in crash_points(start, whole.medium.log):
        if point.number == len(whole.medium.log):
            break
        dying = StoreLife(start, told)
        dying.medium = Medium(start, failures={point.number: Crash()})
        with pytest.raises(Crash):
            dying.open()
        left, derived = dying.medium.at_rest, point.after_death()
        assert left.durable == derived.durable
        assert left.pending == derived.pending
        assert Medium(left).bytes == dying.medium.bytes
