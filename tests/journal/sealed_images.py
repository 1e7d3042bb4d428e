"""Small sealed journals on a medium in memory that remembers what each of its sectors held before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from siltstone.format.superblock import ACTIVE, KIND_JOURNAL, Extent
from siltstone.journal.log_reader import LogReader
from siltstone.journal.sealed import SealedJournal

if TYPE_CHECKING:
    from siltstone.format.seal import End

CLUSTER = 4096
SECTOR = 512
UUID = bytes(range(16))
ENTRY_SIZE = 50
ENTRIES_A_CLUSTER = 81

#: in the middle of the medium, so that offsets on the volume and in the journal differ
EXTENT = Extent(7, 65536, 65536, KIND_JOURNAL, shard=1, order=1, state=ACTIVE, generation=5)


class Medium:
    """Bytes in memory; keeps every earlier content of every sector."""

    url = "memory:image"
    read_only = False

    def __init__(self, size: int = 3 * 65536) -> None:
        self.data = bytearray(size)
        self.earlier: list[set[bytes]] = [set() for _ in range(size // SECTOR)]
        self.earlier_clusters: list[set[bytes]] = [set() for _ in range(size // CLUSTER)]

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data)
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        piece = bytes(data)
        assert offset % CLUSTER == 0
        assert len(piece) % CLUSTER == 0
        for at in range(offset, offset + len(piece), SECTOR):
            self.earlier[at // SECTOR].add(bytes(self.data[at : at + SECTOR]))
        for at in range(offset, offset + len(piece), CLUSTER):
            self.earlier_clusters[at // CLUSTER].add(bytes(self.data[at : at + CLUSTER]))
        self.data[offset : offset + len(piece)] = piece

    def flush(self) -> None: ...


def entries(first: int, count: int) -> bytes:
    """`count` packed entries that differ from one another and from all others, numbered from `first`."""
    return b"".join(
        bytes([ENTRY_SIZE, 0x02]) + number.to_bytes(4, "big") * 12 for number in range(first, first + count)
    )


@dataclass
class Image:
    """A journal as some life left it: what was written, and which of it was acknowledged when."""

    extent: Extent
    medium: Medium = field(default_factory=Medium)
    written: int = 0  # entries
    boundaries: set[int] = field(default_factory=lambda: {0})  # entries before each end of a batch
    acknowledged: list[int] = field(default_factory=lambda: [0])  # entries that each flush covered
    journal: SealedJournal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = SealedJournal(self.medium, UUID, self.extent, self.medium.flush)
        self.journal.prepare()

    def append(self, count: int) -> None:
        """A batch of so many entries."""
        self.journal.append_stream(np.frombuffer(self.content(self.written, count), np.uint8))
        self.written += count
        self.boundaries.add(self.written)

    def flush(self, *, note: bool = False) -> None:
        """Flush, or write the idle note."""
        assert self.journal.begin_flush(note=note)
        self.medium.flush()
        self.journal.end_flush()
        self.acknowledged.append(self.written)

    def content(self, first: int, count: int) -> bytes:
        """Entries as this life writes them."""
        return entries(self.extent.generation * 1_000_000 + first, count)

    @property
    def end(self) -> End:
        return self.journal.end

    def recycled(self) -> Image:
        """The next life of the journal, over what this one left."""
        return Image(replace(self.extent, generation=self.extent.generation + 1), self.medium)


def content_up_to(medium: Medium, extent: Extent, end: End) -> bytes:
    """The entries of a journal up to `end`, every cluster checked; DamageError as the reader raises it."""
    reader = LogReader(medium, UUID, extent)
    pieces = []
    for _first, clusters in reader.chunks(end.cluster):
        for at in range(0, len(clusters), CLUSTER):
            used = int.from_bytes(clusters[at + 4072 : at + 4074], "big")
            pieces.append(clusters[at : at + used])
    last, _slot = reader.last_cluster(end)
    return b"".join([*pieces, last[: end.byte]])
