"""T21, the part of it that crashes show: each planted fault is caught by the battery named beside it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import planted_faults as planted
import planted_upkeep
import pytest
import sector_battery as sectors
import test_faults_at_the_end as faults
import test_interrupts as interrupts
from medium import LateInterrupt
from order_battery import OrderBattery, base_image, workloads
from recovery_battery import ROOMY, WORKLOADS, RecoveryBattery
from recycle_battery import check_format, check_new_store, check_recycled
from store_contents import contents
from store_life import StoreLife
from store_operations import OPERATIONS

from siltstone.errors import MediumError, SiltstoneError
from siltstone.format.constants import ERASE_BLOCK_MIN
from siltstone.shard import incarnation
from siltstone.shard.filling import fill_part

if TYPE_CHECKING:
    from collections.abc import Callable


#: bytes of space in which nothing is ever full
AMPLE = 40 * ERASE_BLOCK_MIN


# ---- small runs of the batteries


def t1_singles() -> None:
    sectors.check_scenario(sectors.singles, 100)


def t1_notes() -> None:
    sectors.check_scenario(sectors.notes, 100)


def t1_batches() -> None:
    sectors.check_scenario(sectors.far_batches, 300)


def t1_rot() -> None:
    sectors.check_scenario(sectors.crossing, 300)


def t1_superblock() -> None:
    sectors.check_superblocks(60)


def t2_short() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=1)
    for first in ("append", "batch", "roll"):
        for second in ("flush", "roll", "append", "close", "kill"):
            battery.run((first, second))


def t2_turns() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=1, room=AMPLE)
    battery.run(("append", "flush", "turn", "append", "flush"))
    battery.run(("append", "turn", "batch", "flush", "append", "kill"))


def t2_deaths() -> None:
    battery = OrderBattery(limit=1, depth=1, seed=1)
    for workload in (("roll",), ("append", "roll"), ("batch", "close")):
        battery.run(workload)


def t2_longer() -> None:
    battery = OrderBattery(limit=6, depth=2, seed=2)
    for workload in random.Random(3).sample(list(workloads(4)), 15):
        battery.run(workload)


def t4() -> None:
    battery = RecoveryBattery(limit=3, nested=1000)
    for workload in WORKLOADS[:5]:
        battery.run(workload, 1, ROOMY)


def t7_recycled() -> None:
    check_recycled(3000)


def t7_format() -> None:
    check_format(1000)


def t7_new_store() -> None:
    check_new_store(300)


#: three keys in a hash store, and one of them put again
INCARNATED = ("append", "append", "append", "roll", "incarnate", "append")


def t2_packing() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=3, room=AMPLE)
    battery.run(("append", "append", "append", "roll", "append", "pack"))
    battery.run(("batch", "append", "roll", "pack"))
    battery.run(("append", "roll", "delete", "roll", "pack newest", "kill"))


def t2_incarnation() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=3, room=AMPLE)
    battery.run(("append", "roll", "incarnate"))
    battery.run((*INCARNATED, "delete", "flush", "kill"))
    battery.run((*INCARNATED, "roll", "incarnate", "merge"))


def t2_slices() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=3, room=AMPLE)
    puts = ("append", "append", "append", "batch", "roll", "incarnate")
    battery.run((*puts, *["delete"] * 4, "roll", "incarnate", "slice"))
    battery.run((*puts, "batch", *["delete"] * 4, "roll", "incarnate", "slice", "kill"))


def t2_sweeps() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=3, room=AMPLE)
    puts = ("append", "append", "append", "batch", "roll", "incarnate")
    battery.run((*puts, *["append"] * 4, "sweep", "kill"))
    battery.run((*puts, *["delete"] * 4, "roll", *["append"] * 3, "sweep", "pack", "kill"))


def t2_together() -> None:
    battery = OrderBattery(limit=6, depth=10, seed=3, room=AMPLE, shards=2)
    battery.run(("append each", "spare each", "append each", "roll each"))
    battery.run(("append each", "spare each", "roll each", "append each", "flush", "kill"))


def looked_at_in_every_step() -> None:
    """What is there is found after each step in which an index and its hash stores change."""
    image, told = base_image(room=AMPLE)
    life = StoreLife(image, told)
    life.open()
    store = life.group.shards[0].store
    with pytest.MonkeyPatch.context() as patch:
        for name in ("show_hash_stores", "drop", "shrink", "show_end", "move", "remove"):
            usual = getattr(store, name)

            def step(*arguments: Any, usual: Callable[..., Any] = usual) -> Any:
                answer = usual(*arguments)
                expected = contents(life.given[0])
                life._check_lookups(0, store, sorted(expected), expected)
                return answer

            patch.setattr(store, name, step)
        for name in (*INCARNATED, "roll", "incarnate", "merge", "append", "roll", "pack"):
            OPERATIONS[name](life)


def about_to_incarnate() -> StoreLife:
    """A store with a closed journal."""
    life = StoreLife(*base_image(room=AMPLE))
    life.open()
    for name in ("append", "append", "roll"):
        OPERATIONS[name](life)
    return life


def deleted_while_it_is_incarnated() -> None:
    """What is deleted while a hash store is filled is gone when that is listed."""
    life = about_to_incarnate()
    with pytest.MonkeyPatch.context() as patch:

        def fill(*arguments: Any, **options: Any) -> Any:
            life.delete()
            return fill_part(*arguments, **options)

        patch.setattr(incarnation, "fill_part", fill)
        life.incarnate()
    life._check(0)


def a_flush_fails_meanwhile() -> None:
    """A flush for others fails while a hash store is filled, and the next one succeeds."""
    life = about_to_incarnate()
    with pytest.MonkeyPatch.context() as patch:

        def fill(*arguments: Any, **options: Any) -> Any:
            filled = fill_part(*arguments, **options)
            usual = life.medium.flush
            patch.setattr(life.medium, "flush", failing_flush)
            with pytest.raises(MediumError):
                life.volume.flush(shared=True)
            patch.setattr(life.medium, "flush", usual)
            return filled

        patch.setattr(incarnation, "fill_part", fill)
        with pytest.raises(MediumError):
            life.incarnate()


def failing_flush() -> None:
    raise MediumError("EIO", operation="flush")


def unreadable() -> None:
    faults.test_a_cluster_that_cannot_be_read_is_never_taken_for_the_end(5)


def interrupted_batch() -> None:
    interrupts.test_an_interrupt_in_the_middle("batch", LateInterrupt)


CAUGHT: tuple[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]], ...] = (
    (planted.the_same_slot_every_time, t1_singles),
    (planted.the_idle_note_in_the_slot_of_the_end, t1_notes),
    (planted.a_batch_in_two_parts, t1_batches),
    (planted.a_batch_given_up_and_forgotten, interrupted_batch),
    (planted.durable_is_never_told, t1_rot),
    (planted.no_generation_in_the_seed, t7_recycled),
    (planted.half_a_generation_in_the_seed, t7_recycled),
    (planted.no_journal_in_the_seed, t7_recycled),
    (planted.no_volume_in_the_seed, t7_recycled),
    (planted.a_medium_that_lies, t1_singles),
    (planted.a_medium_that_lies, t2_short),
    (planted.no_flush_between_begin_and_end, t2_short),
    (planted.no_barrier_at_an_opening, t2_deaths),
    (planted.no_prepared_slots, t2_short),
    (planted.the_roll_published_before_the_flush, t2_short),
    (planted.only_the_first_written_before_a_roll_together, t2_together),
    (planted.what_was_put_behind_a_roll_acknowledged_before_it, t2_turns),
    (planted.a_roll_that_the_superblock_is_not_told, t2_turns),
    (planted.only_the_first_made_ready_of_spares_together, t2_together),
    (planted.the_copy_published_before_the_flush, t4),
    (planted.going_on_in_the_recovered_journal, t2_longer),
    (planted.the_end_instead_of_the_last_boundary, t1_batches),
    (planted.eio_taken_for_the_end, unreadable),
    (planted.old_generations_for_empty_journals, t4),
    (planted.the_epoch_not_raised, t2_short),
    (planted.clean_not_cleared, t2_short),
    (planted.one_order_for_all_journals, t2_short),
    (planted.the_current_slot_first, t1_superblock),
    (planted.both_slots_under_one_flush, t1_superblock),
    (planted.one_slot_only, t1_superblock),
    (planted.space_discarded_before_it_is_free, t4),
    (planted.a_format_that_zeroes_nothing, t7_format),
    (planted.a_format_with_the_old_uuid, t7_new_store),
    (planted_upkeep.packing_without_a_flush_of_what_replaced_it, t2_packing),
    (planted_upkeep.copies_published_before_they_are_flushed, t2_packing),
    (planted_upkeep.copies_published_before_they_are_flushed, t2_incarnation),
    (planted_upkeep.deletions_given_up_although_something_is_older, t2_packing),
    (planted_upkeep.the_index_lets_go_before_the_hash_store_is_listed, looked_at_in_every_step),
    (planted_upkeep.a_merge_that_keeps_the_oldest, t2_incarnation),
    (planted_upkeep.a_slice_whose_sources_go_before_it_is_flushed, t2_slices),
    (planted_upkeep.a_sweep_by_what_is_not_flushed, t2_sweeps),
    (planted_upkeep.hash_stores_shown_after_the_replay, t2_incarnation),
    (planted_upkeep.deletions_forgotten_while_a_hash_store_is_made, deleted_while_it_is_incarnated),
    (planted_upkeep.a_failed_flush_of_others_forgotten, a_flush_fails_meanwhile),
)


@pytest.mark.parametrize(("fault", "battery"), CAUGHT, ids=lambda function: function.__name__)
def test_a_planted_fault_is_caught(fault, battery, monkeypatch):
    fault(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, SiltstoneError)):
        battery()


@pytest.mark.parametrize(
    "battery", dict.fromkeys(battery for _fault, battery in CAUGHT), ids=lambda function: function.__name__
)
def test_without_a_fault_the_same_runs_pass(battery):
    battery()
