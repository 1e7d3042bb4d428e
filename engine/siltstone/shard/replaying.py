"""The replay of a shard's journals: what a checkpoint has is brought back, the rest is read; and how far it is."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import Position
from siltstone.format.superblock import CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from siltstone.format.seal import End
    from siltstone.format.superblock import Extent, Superblock
    from siltstone.log_store.log_store import LogStore, Others
    from siltstone.shard.checkpoint import Covering


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is: bytes of journals verified, of how many, and entries in them."""

    bytes_done: int
    bytes_total: int
    records: int


class Meter:
    """Adds up what all shards have replayed and tells the caller."""

    def __init__(self, superblock: Superblock, callback: Callable[[ReplayProgress], None] | None) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._total = sum(
            (extent.end.cluster + 1) * CLUSTER_SIZE if extent.end else extent.length
            for extent in superblock.journals()
        )
        self._bytes = self._records = 0

    def add(self, size: int, records: int) -> None:
        """`size` bytes more were read, with `records` entries in them."""
        if self._callback is None:
            return
        with self._lock:
            self._bytes += size
            self._records += records
            self._callback(ReplayProgress(min(self._bytes, self._total), self._total, self._records))


def left_of(covering: Covering | None, journals: Sequence[Extent]) -> int:
    """Bytes of a shard's journals that a replay must read, since no checkpoint covers them."""
    left = 0
    for extent in journals:
        covered = Position(0, 0) if covering is None else covering.position_in(extent)
        # One without an end may be full.
        end = extent.end.position if extent.end else Position(extent.length // CLUSTER_SIZE, 0)
        if covered < end:
            left += (1 + end.cluster - covered.cluster) * CLUSTER_SIZE
    return left


def begin_restoring(
    store: LogStore, covering: Covering | None, journals: Sequence[Extent]
) -> Covering | None:
    """Let the index wait for what its checkpoint has, unless one of the journals that it covers went when way was made.

    :param journals: those of the shard that are there
    """
    if covering is None:
        return None
    there = {extent.id for extent in journals}
    gone = [one.extent for one in covering.journals if one.extent.id not in there]
    for extent in gone:
        store.remove(extent)
    if gone:
        return None
    covering.begin(store)
    return covering


def replay(
    store: LogStore,
    covering: Covering | None,
    extent: Extent,
    end: End,
    meter: Meter,
    others: Others | None,
) -> bytes:
    """Bring a journal into the index, all of it or what a checkpoint lacks; the entries of its last cluster.

    Of a closed journal that is covered nothing is read, unless others want those of its entries that have no key.
    """
    covered = Position(0, 0) if covering is None else covering.position_in(extent)
    if covering is not None and covered > (0, 0):
        if others is not None and covering.keyless(extent):
            store.hand_over(extent, covering.end_in(extent), others)
        whole = covered == end.position and extent.state == CLOSED
        meter.add((covered.cluster + whole) * CLUSTER_SIZE, covering.entries_in(extent))
        if whole:
            store.show_end(extent, end)
            return b""
    return store.replay(extent, end, progress=meter.add, others=others, covered=covered)
