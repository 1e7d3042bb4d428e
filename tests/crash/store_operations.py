"""What the batteries do with a store, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from store_life import StoreLife, in_small_parts

from siltstone.shard.sweeping import Overruling, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable


def _to_each(act: Callable[[StoreLife, int], None]) -> Callable[[StoreLife], None]:
    def to_each(life: StoreLife) -> None:
        for shard in range(len(life.given)):
            act(life, shard)

    return to_each


OPERATIONS: dict[str, Callable[[StoreLife], None]] = {
    "append": StoreLife.append,
    "batch": StoreLife.batch,
    "delete": StoreLife.delete,
    "flush": StoreLife.flush,
    "turn": StoreLife.turn,
    "roll": StoreLife.roll,
    "spare": StoreLife.spare,
    "onward": StoreLife.onward,
    "pack": StoreLife.pack,
    "pack newest": StoreLife.pack_newest,
    "clean": StoreLife.clean,
    "incarnate": StoreLife.incarnate,
    "merge": StoreLife.merge,
    "note": StoreLife.note,
    "checkpoint": StoreLife.checkpoint,
    "close": StoreLife.close,
    "kill": StoreLife.kill,
}


def sweep(life: StoreLife) -> None:
    """Sweep what is left of the only hash store of the first shard, by what closed journals say now."""
    shard = life.group.shards[0]

    def act() -> None:
        found = Overruling(shard)
        found.look()
        way = Sweep(shard, found)
        while not way.over:
            way.slice()

    if shard.store.hash_stores:
        with in_small_parts():
            life.carry_out(0, act, flushes=False)


#: what workloads name that are not made by chance: the same to all shards of a store that has several, or a part of one
TOGETHER: dict[str, Callable[[StoreLife], object]] = {
    "slice": StoreLife.merge_slice,
    "sweep": sweep,
    "append each": _to_each(StoreLife.append),
    "delete each": _to_each(StoreLife.delete),
    "turn each": StoreLife.turn_together,
    "roll each": StoreLife.roll_together,
    "spare each": StoreLife.spares,
}
