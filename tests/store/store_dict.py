"""A store beside a dict of what it must hold: random puts and deletions, and openings after closes and deaths."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from store_records import hashes

import siltstone

if TYPE_CHECKING:
    from pathlib import Path


class DictBeside:
    """A store of some shards with small journals, and the dict.

    :param most: records that a step changes
    """

    KEYS = 3_000

    def __init__(self, path: Path, *, shards: int, seed: int, most: int) -> None:
        self.chance = random.Random(seed)
        self.names = hashes(range(self.KEYS))
        self.held: dict[int, int] = {}
        self.store = siltstone.open(path, shards=shards, erase_block=64 * 1024)
        self._path = path
        self._most = most
        self._steps = 0

    def change(self) -> None:
        """Put or delete some records."""
        self._steps += 1
        chosen = np.array(self.chance.sample(range(self.KEYS), self.chance.randrange(1, self._most)))
        if self.chance.random() < 0.4:
            found = self.store.delete_many(self.names[chosen])
            assert found.tolist() == [int(key) in self.held for key in chosen]
            for key in chosen.tolist():
                self.held.pop(key, None)
        else:
            values = np.arange(len(chosen), dtype=np.uint64) + np.uint64(self._steps * 10_000)
            self.store.put_many(self.names[chosen], values, values)
            self.held |= dict(zip(chosen.tolist(), values.tolist(), strict=True))

    def open_again(self) -> None:
        """After a clean close, or after a flush and a death."""
        self.store.flush()
        if self.chance.random() < 0.5:
            self.store.close()
        else:
            self.store._core.abandon()
        self.store = siltstone.open(self._path)

    def check(self) -> None:
        """The store says of every key what the dict says."""
        found, physical, _logical = self.store.get_many(self.names)
        assert {key: int(physical[key]) for key in np.flatnonzero(found).tolist()} == self.held
        for key in (0, 1, self.KEYS - 1):
            one = self.store.get(self.names[key].tobytes())
            assert (None if one is None else one.physical_sect) == self.held.get(key)
