"""Entries in bulk: many at once, as arrays over the bytes that were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from siltstone.format.constants import CLUSTER_SIZE, ENTRY_HEADER_SIZE, ENTRY_SIZE_MIN
from siltstone.format.entries import Entry
from siltstone.format.kernels import locate_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EntryBlock:
    """Some entries that follow each other in a journal.

    :param data: the bytes that they were read with, uint8
    :param starts: where each starts in `data`, uint32
    :param offset: byte offset in the journal of the first byte of `data`
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.uint32]
    offset: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def offsets(self) -> NDArray[np.uint64]:
        """Byte offset of each entry in the journal."""
        return self.starts.astype(np.uint64) + np.uint64(self.offset)

    @property
    def sizes(self) -> NDArray[np.uint8]:
        """Bytes of each entry, header included."""
        return self.data[self.starts]

    @property
    def types(self) -> NDArray[np.uint8]:
        """Type byte of each entry."""
        return self.data[self.starts + 1]

    def entry(self, number: int) -> Entry:
        """One of them, copied out."""
        start = int(self.starts[number])
        size = int(self.data[start])
        return Entry(int(self.data[start + 1]), self.data[start + ENTRY_HEADER_SIZE : start + size].tobytes())

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        """Each with its offset in the journal."""
        for number, start in enumerate(self.starts.tolist()):
            yield self.offset + start, self.entry(number)


def block_of(clusters: memoryview, last_used: int, offset: int) -> EntryBlock:
    """The entries of whole, verified sealed clusters; of the last one `last_used` bytes count."""
    data = np.frombuffer(clusters, np.uint8)
    starts = np.empty(len(data) // CLUSTER_SIZE * (CLUSTER_SIZE // ENTRY_SIZE_MIN), np.uint32)
    return EntryBlock(data, starts[: locate_entries(data, last_used, starts)], offset)
