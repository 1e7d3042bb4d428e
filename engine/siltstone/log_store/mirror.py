"""Copies of journals in memory, for backends that cannot be mapped."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from siltstone.index.layout import JOURNAL_BYTES_MAX, JOURNALS_MAX
from siltstone.log_store.memory import shared_memory
from siltstone.volume.mapping import Mapping

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from siltstone.format.superblock import Extent
    from siltstone.volume.backend import Backend


class MirrorSpace:
    """Shared memory for the mirrors of one shard: a region for each journal number, taken as it is written.

    :param descriptor: of memory that :meth:`share` made, in this process or another; stays the caller's, and open
        while the space is used
    :param place: which of the shards that share this memory
    """

    #: bytes of address space of one shard's mirrors; hardly any are ever touched
    BYTES: Final = JOURNALS_MAX * JOURNAL_BYTES_MAX

    def __init__(self, descriptor: int, place: int = 0) -> None:
        self.descriptor = descriptor
        self._start = place * self.BYTES

    @classmethod
    def share(cls, shards: int) -> int:
        """The descriptor of zeroed memory for the mirrors of some shards; the caller closes it."""
        return shared_memory("siltstone mirrors", shards * cls.BYTES)

    def map(self, number: int, length: int, *, writable: bool = False) -> Mapping:
        """Map the first `length` bytes of the region of journal number `number`; ValueError where it has fewer."""
        if not 0 <= number < JOURNALS_MAX or not 0 < length <= JOURNAL_BYTES_MAX:
            raise ValueError(f"{length} bytes of the mirror of journal number {number}")
        mapping = Mapping(self.descriptor, self._start + number * JOURNAL_BYTES_MAX, length, writable)
        mapping.avoid_huge_pages()
        return mapping


class Mirror:
    """A write-through copy of one extent in memory, for backends that cannot be mapped.

    Stands in for the backend where a journal writes; costs the extent's size in memory as it fills.

    :param region: writable memory of the extent's size; without it the mirror takes private memory
    """

    def __init__(self, backend: Backend, extent: Extent, region: Mapping | None = None) -> None:
        self.backend = backend
        self.extent = extent
        self._region = region
        self.copy = memoryview(mmap.mmap(-1, extent.length) if region is None else region)

    def write(self, offset: int, data: Buffer) -> None:
        """Write to the medium first, then to the copy: readers see only what the medium took."""
        self.backend.write(offset, data)
        self.fill(offset, data)

    def fill(self, offset: int, data: Buffer) -> None:
        """Take over what was read from the medium."""
        start = offset - self.extent.offset
        raw = memoryview(data).cast("B")
        self.copy[start : start + raw.nbytes] = raw

    def remove(self) -> None:
        """Give shared memory back, so that the region reads as zeros; private memory goes with its last reader."""
        if self._region is not None:
            self._region.give_back()
