"""How much memory an index may take, and the address space that it lies in."""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

from siltstone.index.layout import layout_bytes
from siltstone.volume.descriptors import above_standard
from siltstone.volume.mapping import Mapping

#: bytes of index a record takes at most, just after its segment grew: 8 a slot, 75 % full
BYTES_A_RECORD_MAX = 10.7
SEGMENTS_A_STORE = 256
_SEGMENTS_A_SHARD_MIN = 32
_PAGE = 4096
_MAP_NORESERVE = 0x4000
_WINDOW_MIN = 16 * _PAGE


@dataclass(frozen=True, slots=True)
class IndexSize:
    """The shape of one shard's index.

    :param segments: a power of two
    :param window_bytes: most that one segment may grow to [bytes]
    :param records: how many keys it takes before the log store is full
    """

    segments: int
    window_bytes: int
    records: int

    @classmethod
    def of(cls, budget: int, shards: int, records_on_medium: int = 0) -> IndexSize:
        """The index of one of `shards` shards that share `budget` bytes.

        `records_on_medium` is how many keys its journals may hold at most: what is there must be found, also
        where the budget has become smaller since.
        """
        segments = max(_SEGMENTS_A_SHARD_MIN, 1 << (max(1, SEGMENTS_A_STORE // shards) - 1).bit_length())
        records = int(budget / shards / BYTES_A_RECORD_MAX)
        # Segments fill alike; twice the mean is beyond what chance does. It is address space, not memory.
        mean = max(records, records_on_medium) * BYTES_A_RECORD_MAX / segments
        window = max(_WINDOW_MIN, -(-int(2 * mean) // _PAGE) * _PAGE)
        return cls(segments, window, records)

    @property
    def address_bytes(self) -> int:
        """Bytes of address space that it takes."""
        return layout_bytes(self.segments, self.window_bytes)

    def allocate(self) -> mmap.mmap:
        """Address space for it, private to this process; pages are taken as they are touched."""
        memory = mmap.mmap(
            -1, self.address_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        )
        # A huge page would be taken whole for a segment of a few kilobytes.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        return memory

    def share(self) -> int:
        """The descriptor of zeroed memory for it that processes can share, of a size that nobody can change.

        The caller closes it; maps of it stay. Pages are taken as they are touched.
        """
        return shared_memory("siltstone index", self.address_bytes)

    def map_shared(self, descriptor: int, *, writable: bool) -> Mapping:
        """Map what `share` made: writable for the one process that writes the index, else for those that look."""
        memory = Mapping(descriptor, 0, self.address_bytes, writable)
        memory.avoid_huge_pages()
        return memory


def shared_memory(name: str, size: int) -> int:
    """The descriptor of `size` zeroed bytes without a place in any file system; the caller closes it.

    `name` is for those who look at the process from outside. Sealed against another size: a map of it can be read
    to its end whatever the other processes do.
    """
    descriptor = above_standard(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
