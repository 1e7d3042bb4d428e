"""Deletions that come while a hash store is made of what they delete.

The entries of some journals are looked through, written and flushed while others go on to delete; what is deleted
meanwhile leaves the index without a trace, since no hash store that is listed has it. The new one does: before it is
listed the index must remember those deletions, or it would bring their keys back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from siltstone.format.constants import TYPE_DELETE
from siltstone.format.kernels import count_of_type, split_entries

if TYPE_CHECKING:
    from numpy import uint64
    from numpy.typing import NDArray

    from siltstone.hash_store.older import OlderStores
    from siltstone.index.table import LogIndex


class _Run(NamedTuple):
    """Deletions in one journal, packed, and where each is in its extent [bytes]."""

    journal: int
    stream: NDArray[np.uint8]
    positions: NDArray[uint64]


class Deletions:
    """Those that were applied to an index since this was made, in their order."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def gather(self, journal: int, stream: NDArray[np.uint8], positions: NDArray[uint64] | int) -> None:
        """Take a copy of the deletions among packed entries of the journal with this number.

        :param positions: where each is in its extent, or where the first is, behind which they lie [bytes]
        """
        starts = entry_starts(stream)
        deletes = stream[starts + 1] == TYPE_DELETE
        if deletes.any():
            each = np.uint64(positions) + starts if isinstance(positions, int) else positions[: len(starts)]
            self._runs.append(_Run(journal, stream[entry_mask(stream, deletes)], each[deletes]))

    def remember(self, index: LogIndex, older: OlderStores) -> None:
        """Let the index remember those of keys that it knows nothing of and some hash stores have."""
        for run in self._runs:
            held = older.holding(run.stream, len(run.positions))
            index.remember(run.journal, run.stream[entry_mask(run.stream, held)], run.positions[held])


def count_deletions(stream: NDArray[np.uint8]) -> int:
    """How many of some packed entries delete."""
    return count_of_type(stream, TYPE_DELETE)


def entry_starts(stream: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Where each of some packed entries starts [bytes]."""
    starts = np.empty(len(stream) // 2, np.uint32)
    return starts[: split_entries(stream, starts)]


def entry_mask(stream: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bytes of packed entries belong to the chosen ones of them."""
    return np.repeat(chosen, stream[entry_starts(stream)])
