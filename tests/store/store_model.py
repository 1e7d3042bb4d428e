"""What a store of numbered keys may hold after a crash: per shard a run of its batches, at least what was flushed.

An operation is a list of keys with a value each, 0 for a deletion. The store applies each as one batch a shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from store_records import hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siltstone import Store

    #: value of each key, 0 where it is not there
    State = NDArray[np.uint64]

#: keys that there are
UNIVERSE = 6000
HASHES = hashes(range(UNIVERSE))
_ROW_BITS = 16


@dataclass(frozen=True)
class Operation:
    """One call: "put_many", "delete_many" or "batch"; in order, keys with a value each."""

    call: str
    keys: NDArray[np.int64]
    values: NDArray[np.uint64]

    def run(self, store: Store) -> None:
        """Do it to a store."""
        if self.call == "put_many":
            store.put_many(HASHES[self.keys], self.values, ~self.values)
        elif self.call == "delete_many":
            store.delete_many(HASHES[self.keys])
        else:
            with store.batch() as batch:
                # Runs of puts and of deletions, in order.
                for part in np.split(
                    np.arange(len(self.keys)), np.flatnonzero(np.diff(self.values == 0)) + 1
                ):
                    keys, values = self.keys[part], self.values[part]
                    if values[0]:
                        batch.put_many(HASHES[keys], values, ~values)
                    else:
                        batch.delete_many(HASHES[keys])

    def change(self, state: State) -> None:
        """Do it to a state; of equal keys the last one counts."""
        state[self.keys] = self.values


def random_operation(random: np.random.Generator, number: int, rows_max: int = 1500) -> Operation:
    """Operation `number`, whose values no other operation has."""
    call = str(random.choice(["put_many", "put_many", "delete_many", "batch"]))
    keys = random.integers(0, UNIVERSE, 1 + int(rows_max * random.random() ** 3))
    values = np.arange(1, len(keys) + 1, dtype=np.uint64) + np.uint64(number << _ROW_BITS)
    if call == "delete_many":
        values[:] = 0
    elif call == "batch":
        values[random.random(len(keys)) < 0.3] = 0
    return Operation(call, keys, values)


def seen_in(store: Store) -> State:
    """The state of a store, checked for what it can be checked for by itself."""
    found, physical, logical = store.get_many(HASHES)
    np.testing.assert_array_equal(logical[found], ~physical[found])
    assert not physical[~found].any()
    counted, held = len(store), int(found.sum())
    if counted != held:
        # What was put again since it was incarnated counts twice, until it is merged.
        assert counted > held
        assert "hash_store" in {extent.kind for extent in store.info().extents}
    return np.where(found, physical, np.uint64(0))


def shards_of_keys(store: Store) -> NDArray[np.uint32]:
    """The shard of each key."""
    return store._core.router.shards_of(store._default.id, HASHES)


class History:
    """What is durable, and what was asked for since."""

    def __init__(self) -> None:
        self.base: State = np.zeros(UNIVERSE, np.uint64)
        self.pending: list[Operation] = []

    def current(self) -> State:
        """The state with everything that was asked for."""
        state = self.base.copy()
        for operation in self.pending:
            operation.change(state)
        return state

    def settle(self, count: int | None = None) -> None:
        """The first `count` pending operations, or all of them, are durable."""
        count = len(self.pending) if count is None else count
        for operation in self.pending[:count]:
            operation.change(self.base)
        del self.pending[:count]

    def settle_as(self, seen: State, shards: NDArray[np.uint32]) -> None:
        """Take what a store shows after a crash for durable; it has to be a legal run in every shard."""
        for shard in np.unique(shards).tolist():
            self._check_shard(seen, shards == shard, shard)
        self.base, self.pending = seen, []

    def _check_shard(self, seen: State, mine: NDArray[np.bool_], shard: int) -> None:
        state = self.base.copy()
        wrong = [int(((state != seen) & mine).sum())]
        for operation in self.pending:
            if not wrong[-1]:
                return
            operation.change(state)
            wrong.append(int(((state != seen) & mine).sum()))
        assert not wrong[-1], (
            f"shard {shard}: no run of its {len(self.pending)} unacknowledged batches gives what it shows;"
            f" keys that differ after 0, 1, ... of them: {wrong}"
        )
