"""A process that hashes blocks which lie in shared memory, and the layout of that memory.

It is started by the path of this file, so that it loads nothing of the engine and is there within a few
milliseconds. It ends when the pipe from its starter does, so it never outlives it.

Why processes: hashing lets go of the interpreter lock for each block, and two threads that take it from each
other a few hundred thousand times a second hash less than one thread does alone.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DIGEST_SIZE", "HASHES", "ORDER", "SlotLayout", "hash_blocks", "hash_function"]

DIGEST_SIZE: Final = 32
#: names of the content hashes
HASHES: Final = ("sha256", "blake3")
#: one order to a hashing process, sent back as it is when it is done: slot, blocks in it
ORDER: Final = struct.Struct("=II")

_PAGE: Final = 4096


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """How shared memory is divided: equal slots, each with data, lengths of its blocks (u32), digests.

    :param slots: how many
    :param data_size: room for data in a slot [bytes]
    :param blocks_max: the most blocks in a slot
    """

    slots: int
    data_size: int
    blocks_max: int

    @property
    def lengths_offset(self) -> int:
        """Where in a slot the lengths begin [bytes]."""
        return _whole_pages(self.data_size)

    @property
    def digests_offset(self) -> int:
        """Where in a slot the digests begin [bytes]."""
        return self.lengths_offset + _whole_pages(4 * self.blocks_max)

    @property
    def stride(self) -> int:
        """From one slot to the next [bytes]."""
        return self.digests_offset + _whole_pages(DIGEST_SIZE * self.blocks_max)

    @property
    def size(self) -> int:
        """All of it [bytes]."""
        return self.slots * self.stride


def hash_function(name: str) -> Callable[[memoryview], Any]:
    """Return the content hash of that name: from data to something with a `digest` of 32 bytes."""
    if name == "blake3":
        from blake3 import blake3

        return blake3
    return hashlib.sha256


def hash_blocks(function: Callable[[memoryview], Any], data: memoryview, lengths: Iterable[int]) -> bytes:
    """Return the digests of the blocks that lie one behind the other in `data`, joined."""
    ends = accumulate(lengths, initial=0)
    return b"".join([function(data[start:end]).digest() for start, end in pairwise(ends)])


def _serve(descriptor: int, layout: SlotLayout, function: Callable[[memoryview], Any]) -> None:
    memory = memoryview(mmap.mmap(descriptor, layout.size))
    while order := os.read(0, ORDER.size):
        slot, blocks = ORDER.unpack(order)
        part = memory[slot * layout.stride :][: layout.stride]
        lengths = part[layout.lengths_offset :][: 4 * blocks].cast("I")
        digests = hash_blocks(function, part, lengths)
        part[layout.digests_offset :][: len(digests)] = digests
        os.write(1, order)


if __name__ == "__main__":
    _descriptor, _slots, _data_size, _blocks_max = map(int, sys.argv[1:5])
    try:
        _serve(_descriptor, SlotLayout(_slots, _data_size, _blocks_max), hash_function(sys.argv[5]))
    except BrokenPipeError:
        # The starter is gone, and nobody waits for the digests.
        sys.exit(1)
