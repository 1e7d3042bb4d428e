"""Where a file is cut into blocks: at fixed offsets, or where its content says so (FastCDC).

A cutter keeps no state between calls. It gets what follows in a file, says how long the blocks are that are
certain to begin there, and is given the rest again, with more behind it. So a cut never depends on how the
file was read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

__all__ = [
    "BLOCK_SIZE_MAX",
    "CHUNK_SIZE_AVERAGE",
    "CHUNK_SIZE_MAX",
    "CHUNK_SIZE_MIN",
    "ContentCutter",
    "Cutter",
    "FixedCutter",
]

#: the largest block that may be asked for [bytes]
BLOCK_SIZE_MAX: Final = 4 << 20
#: what content-defined chunking aims at, and its bounds [bytes]
CHUNK_SIZE_MIN: Final = 4 << 10
CHUNK_SIZE_AVERAGE: Final = 16 << 10
CHUNK_SIZE_MAX: Final = 64 << 10

assert CHUNK_SIZE_MIN <= CHUNK_SIZE_AVERAGE <= CHUNK_SIZE_MAX <= BLOCK_SIZE_MAX


class Cutter(ABC):
    """Cuts what follows in a file into blocks."""

    #: the longest block that it makes [bytes]; given as much, it always makes one
    size_max: int

    @abstractmethod
    def cut(self, data: memoryview, *, end: bool) -> list[int]:
        """Return the lengths of the blocks that `data` begins with, one behind the other [bytes].

        With `end` the file ends where `data` does, and the blocks cover all of it; else up to `size_max` - 1
        bytes may be left, to be given again. Empty data has no block.
        """


class FixedCutter(Cutter):
    """Cuts at every multiple of `block_size`; the last block of a file is as short as it is."""

    def __init__(self, block_size: int) -> None:
        self.size_max = block_size

    def cut(self, data: memoryview, *, end: bool) -> list[int]:
        whole, rest = divmod(len(data), self.size_max)
        lengths = [self.size_max] * whole
        if end and rest:
            lengths.append(rest)
        return lengths


class ContentCutter(Cutter):
    """Cuts where a rolling hash of the content says so (FastCDC): 4 to 64 KiB, 16 KiB on average."""

    size_max = CHUNK_SIZE_MAX

    def __init__(self) -> None:
        # Only those who ask for it pay for its import.
        from pyfastcdc import FastCDC

        self._chunker = FastCDC(CHUNK_SIZE_AVERAGE, min_size=CHUNK_SIZE_MIN, max_size=CHUNK_SIZE_MAX)

    def cut(self, data: memoryview, *, end: bool) -> list[int]:
        # A cut looks at no more than size_max bytes from where the block begins. With fewer than that, and
        # more to come, the cut could fall elsewhere once the rest is there.
        certain = len(data) if end else len(data) - self.size_max + 1
        lengths = []
        offset = 0
        chunks = iter(self._chunker.cut_buf(data))
        while offset < certain:
            length = next(chunks).length
            lengths.append(length)
            offset += length
        return lengths
