"""Ask the store about blocks, batch by batch, and give it those that it does not have.

Each new block gets a place: the next free sectors. Where the next run goes on stands in the store itself,
in one record under a key that no block has: its `physical_sect` is a sector at or beyond every one that was
given out, its `first_logical_sect` the number of the content hash that the store was filled with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from siltstone import HashInfo
from siltstone.errors import StateError
from siltstone.format.constants import SECTOR_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siltstone import Store

__all__ = ["ALLOCATION_KEY", "BATCH_BLOCKS", "Feeder", "first_occurrences"]

#: blocks that the store is asked about at once
BATCH_BLOCKS: Final = 8192
#: key of the record that says where free sectors begin; no content hash is text
ALLOCATION_KEY: Final = b"siltstone dedup: free sectors at"
#: sectors that are set aside, durably, before the first of them is given out: 1 GiB of blocks
_RESERVE_SECTORS: Final = 1 << 21
#: numbers of content hashes in a store; never used twice
_HASH_NUMBERS: Final = {"sha256": 1, "blake3": 2}

assert len(ALLOCATION_KEY) == 32


def first_occurrences(digests: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the rows, in order, whose (n, 32) digest stands in no earlier row."""
    # Mostly all differ, already in their first eight bytes, and numbers sort far faster than strings do.
    starts = np.sort(np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel())
    if (starts[1:] != starts[:-1]).all():
        return np.arange(len(digests))
    # As byte strings of equal width: what their comparison leaves off at the end are zeros on both sides.
    rows = np.ascontiguousarray(digests).view(f"S{digests.shape[1]}").ravel()
    _, first = np.unique(rows, return_index=True)
    first.sort()
    return first


class Feeder:
    """Feeds one run's blocks to a store. The first occurrence of a block wins.

    :param store: open for writing; stays the caller's
    :param hash_name: the content hash of this run

    StateError where the store was filled with another content hash, or by somebody else: then where its free
    sectors begin is unknown.
    """

    def __init__(self, store: Store, hash_name: str) -> None:
        self._store = store
        self._hash_number = _HASH_NUMBERS[hash_name]
        self._waiting: list[tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint64]]] = []
        self._waiting_blocks = 0
        self.blocks = 0
        self.bytes = 0
        self.unique = 0
        self.unique_bytes = 0
        #: blocks that the store had before this run
        self.known = 0
        self._start = self._next = self._reserved = self._read_allocation(hash_name)

    def _read_allocation(self, hash_name: str) -> int:
        mark = self._store.get(ALLOCATION_KEY)
        info = self._store.info()
        if mark is None:
            if info.records:
                raise StateError(
                    f"{info.url}: its {info.records} records are not from `siltstone dedup`; "
                    f"where its free sectors begin is unknown",
                    what=info.url,
                    state="filled by others",
                )
            return 0
        if mark.first_logical_sect != self._hash_number:
            names = {number: name for name, number in _HASH_NUMBERS.items()}
            filled_with = names.get(mark.first_logical_sect, f"hash number {mark.first_logical_sect}")
            raise StateError(
                f"{info.url}: filled with {filled_with} hashes; no {hash_name} hash would be found in it",
                what=info.url,
                state=f"filled with {filled_with}",
            )
        return int(mark.physical_sect)

    @property
    def records(self) -> int:
        """Records of blocks in the store: all but the one that says where free sectors begin."""
        return int(self._store.info().records) - bool(self._reserved)

    def add(
        self, digests: NDArray[np.uint8], lengths: NDArray[np.uint32], first_logical_sects: NDArray[np.uint64]
    ) -> None:
        """Take blocks in the order of their files; `digests` is copied."""
        self._waiting.append((digests.copy(), lengths, first_logical_sects))
        self._waiting_blocks += len(lengths)
        if self._waiting_blocks >= BATCH_BLOCKS:
            self._feed()

    def finish(self) -> None:
        """Feed what is left, and return once all of it is durable."""
        self._feed()
        if self._reserved != self._next:
            self._mark(self._next)
        self._store.flush()

    def _feed(self) -> None:
        if not self._waiting:
            return
        digests, lengths, logical = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._waiting_blocks = 0
        found, physical, _ = self._store.get_many(digests)
        absent = np.flatnonzero(~found)
        rows = absent[first_occurrences(digests[absent])]
        if len(rows):
            self._store.put_many(digests[rows], self._place(lengths[rows]), logical[rows])
        self.blocks += len(lengths)
        self.bytes += int(lengths.sum(dtype=np.uint64))
        self.unique += len(rows)
        self.unique_bytes += int(lengths[rows].sum(dtype=np.uint64))
        self.known += int(np.count_nonzero(found & (physical < np.uint64(self._start))))

    def _place(self, lengths: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Give each new block the next free sectors; return where each begins."""
        sectors = (lengths.astype(np.uint64) + np.uint64(SECTOR_SIZE - 1)) // np.uint64(SECTOR_SIZE)
        ends = np.cumsum(sectors, dtype=np.uint64) + np.uint64(self._next)
        self._next = int(ends[-1])
        if self._next > self._reserved:
            # Durable before any of it is used: whatever a crash leaves, the next run begins behind it.
            self._mark(self._next + _RESERVE_SECTORS)
            self._store.flush()
        return ends - sectors

    def _mark(self, sector: int) -> None:
        self._store.put(HashInfo(ALLOCATION_KEY, sector, self._hash_number))
        self._reserved = sector
