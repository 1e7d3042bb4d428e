"""T2: every workload of up to four operations, cut off at every operation of its medium."""

from __future__ import annotations

import random

import pytest
from order_battery import EXTENTS, OrderBattery, workloads


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_every_workload(length, full_battery):
    """All of them at full size, else a choice that is the same each time."""
    chosen = list(workloads(length))
    if not full_battery:
        chosen = random.Random(length).sample(chosen, min(len(chosen), 60 if length < 3 else 40))
    limits = (60, 2) if length < 3 else (40, 5)
    battery = OrderBattery(limit=limits[0 if full_battery else 1], seed=length)
    for workload in chosen:
        battery.run(workload)
    assert battery.states > 300


#: what is overwritten or deleted, flushed or not, when its journal is packed
PACKED = (
    ("append", "roll", "pack"),
    ("append", "append", "append", "append", "roll", "append", "pack"),
    ("batch", "roll", "batch", "pack"),
    ("batch", "roll", "delete", "pack"),
    ("append", "delete", "roll", "pack"),
    ("append", "roll", "delete", "roll", "pack"),
    ("append", "roll", "delete", "roll", "pack newest"),
    ("append", "roll", "delete", "roll", "pack newest", "kill"),
    ("batch", "roll", "batch", "roll", "append", "pack newest", "pack"),
    ("append", "roll", "append", "roll", "pack", "append", "pack"),
    ("append", "roll", "spare", "delete", "pack", "close"),
    ("batch", "roll", "append", "pack", "note", "close"),
    ("append", "roll", "append", "delete", "roll", "append", "clean"),
    ("append", "delete", "roll", "append", "roll", "clean", "delete", "flush", "kill"),
    ("append", "roll", "batch", "roll", "delete", "clean", "kill", "clean", "close"),
    ("append", "roll", "batch", "roll", "clean", "append", "delete", "roll", "pack"),
)


#: the same for hash stores: what they hold is overwritten and deleted before and after
INCARNATED = (
    ("batch", "roll", "incarnate"),
    ("batch", "append", "delete", "roll", "incarnate", "kill"),
    ("batch", "roll", "incarnate", "delete", "flush", "kill"),
    ("batch", "roll", "incarnate", "delete", "roll", "incarnate"),
    ("batch", "roll", "incarnate", "delete", "roll", "incarnate", "merge"),
    ("batch", "roll", "incarnate", "batch", "append", "roll", "pack", "incarnate", "close"),
    ("batch", "roll", "incarnate", "batch", "delete", "roll", "pack", "close", "incarnate", "merge"),
    ("batch", "roll", "incarnate", "merge", "delete", "roll", "incarnate", "append", "merge", "kill"),
    (
        "batch",
        "roll",
        "incarnate",
        "batch",
        "delete",
        "roll",
        "incarnate",
        "slice",
        "delete",
        "kill",
        "slice",
        "merge",
    ),
    (
        "batch",
        "roll",
        "incarnate",
        "batch",
        "roll",
        "incarnate",
        "slice",
        "delete",
        "roll",
        "incarnate",
        "slice",
        "close",
    ),
    ("append", "delete", "roll", "incarnate"),
    ("append", "roll", "incarnate", "delete", "roll", "incarnate", "merge"),
    ("batch", "append", "roll", "incarnate", "delete", "append", "roll", "sweep", "kill"),
    ("batch", "roll", "incarnate", "batch", "delete", "roll", "sweep", "pack", "delete", "flush", "kill"),
    ("batch", "roll", "incarnate", "delete", "roll", "delete", "sweep", "roll", "sweep", "pack", "close"),
)


@pytest.mark.parametrize("workload", INCARNATED, ids=" ".join)
def test_incarnation_and_merging_cut_off_anywhere(workload, full_battery):
    battery = OrderBattery(limit=200 if full_battery else 8, seed=5, room=4 * EXTENTS)
    battery.run(workload)
    assert battery.states > 3


@pytest.mark.parametrize("workload", PACKED, ids=" ".join)
def test_packing_cut_off_anywhere(workload, full_battery):
    battery = OrderBattery(limit=200 if full_battery else 8, seed=3, room=2 * EXTENTS)
    battery.run(workload)
    assert battery.states > 3


#: what a checkpoint has, what came after it, and what of its journals went meanwhile
CHECKPOINTED = (
    ("batch", "checkpoint"),
    ("batch", "checkpoint", "kill"),
    ("batch", "append", "checkpoint", "append", "flush", "kill"),
    ("batch", "roll", "append", "checkpoint", "delete", "flush", "kill"),
    ("batch", "checkpoint", "batch", "checkpoint", "kill"),
    ("batch", "close", "append", "kill"),
    ("batch", "close", "kill", "kill"),
    ("batch", "roll", "delete", "checkpoint", "roll", "append", "flush", "kill"),
    ("append", "roll", "checkpoint", "delete", "roll", "pack", "kill"),
    ("append", "roll", "append", "checkpoint", "pack", "close"),
    ("batch", "roll", "batch", "checkpoint", "pack", "checkpoint", "kill"),
    ("append", "checkpoint", "roll", "checkpoint", "close", "close"),
)


@pytest.mark.parametrize("workload", CHECKPOINTED, ids=" ".join)
def test_checkpoints_cut_off_anywhere(workload, full_battery):
    battery = OrderBattery(limit=200 if full_battery else 8, seed=4, room=2 * EXTENTS)
    battery.run(workload)
    assert battery.states > 3


#: what comes while the superblock does not know yet that the next journal takes the writes
TURNED = (
    ("append", "turn"),
    ("append", "turn", "append"),
    ("append", "turn", "append", "flush"),
    ("append", "flush", "turn", "batch", "batch", "flush", "append", "kill"),
    ("batch", "turn", "append", "turn", "append", "flush", "kill"),
    ("append", "turn", "spare", "append", "note", "append", "kill"),
    ("append", "turn", "delete", "turn", "delete", "close"),
    ("batch", "turn", "delete", "checkpoint", "append", "kill"),
    ("append", "roll", "turn", "append", "pack", "append", "flush", "kill"),
    ("append", "roll", "delete", "turn", "append", "incarnate", "delete", "flush", "kill"),
    ("batch", "roll", "incarnate", "delete", "turn", "delete", "sweep", "kill"),
    ("append", "append", "turn", "clean", "append", "turn", "clean", "kill"),
    ("append", "turn", "onward", "append", "flush", "kill"),
    ("append", "turn", "append", "onward", "turn", "append", "onward", "flush", "kill"),
    ("batch", "turn", "delete", "onward", "incarnate", "append", "turn", "onward", "close"),
)


@pytest.mark.parametrize("workload", TURNED, ids=" ".join)
def test_what_comes_before_a_roll_is_complete_cut_off_anywhere(workload, full_battery):
    battery = OrderBattery(limit=200 if full_battery else 8, seed=7, room=4 * EXTENTS)
    battery.run(workload)
    assert battery.states > 1


#: shards whose next journals are made ready, and take the writes, together or each for itself
TOGETHER = (
    ("append each", "spare each"),
    ("append each", "spare each", "append each", "roll each"),
    ("append each", "flush", "append each", "roll each", "append each", "flush"),
    ("spare each", "roll each", "append each", "roll each"),
    ("append each", "spare each", "roll each", "spare each", "append each", "roll each", "kill"),
    ("append each", "spare each", "roll each", "delete each", "roll each", "flush", "kill"),
    ("append each", "spare", "append each", "roll each", "append each", "flush", "close"),
    (
        "append each",
        "spare each",
        "roll each",
        "checkpoint",
        "append each",
        "spare each",
        "roll each",
        "kill",
    ),
    ("append each", "spare each", "roll each", "append each", "pack", "spare each", "roll each", "close"),
    ("append each", "spare each", "turn each", "append each", "flush"),
    (
        "append each",
        "spare each",
        "turn each",
        "append each",
        "spare each",
        "turn each",
        "append each",
        "note",
    ),
    ("append each", "spare", "turn each", "append each", "flush", "kill"),
    ("append each", "spare each", "turn each", "append each", "onward", "append each", "flush"),
    ("append each", "spare each", "turn each", "onward", "turn each", "onward", "append each", "kill"),
)


@pytest.mark.parametrize("workload", TOGETHER, ids=" ".join)
def test_what_shards_do_together_cut_off_anywhere(workload, full_battery):
    battery = OrderBattery(limit=200 if full_battery else 8, seed=6, room=4 * EXTENTS, shards=2)
    battery.run(workload)
    assert battery.states > 3


def test_on_a_medium_that_was_full_of_something(full_battery):
    battery = OrderBattery(limit=40 if full_battery else 4, seed=9, fill=b"\x04\x02ab")
    chosen = list(workloads(3 if full_battery else 2))
    for workload in random.Random(9).sample(chosen, len(chosen) if full_battery else 20):
        battery.run(workload)
    assert battery.states > 100
