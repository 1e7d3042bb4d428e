"""Where a journal of its own gets its space: a bare medium, without a superblock that remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, StateError
from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_DEFAULT
from siltstone.format.superblock import Extent
from siltstone.volume.allocator import round_to_erase_blocks

if TYPE_CHECKING:
    from siltstone.volume.backend import Backend


class BareSpace:
    """Gives out extents of a medium, first fit, from `start` on; remembers them in memory only.

    :param backend: open and locked by the caller, who also closes it
    :param start: first byte that may be given out
    :param erase_block: unit of space [bytes]
    :param uuid: 16 bytes that tell this medium's sealed clusters from another's
    :param generation: of the last life that a sealed journal here had; the next gets the next number. Who
        opens a medium again must pass a number at least as large as any used before.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        start: int = 0,
        erase_block: int = ERASE_BLOCK_DEFAULT,
        uuid: bytes = bytes(16),
        generation: int = 0,
    ) -> None:
        if erase_block < CLUSTER_SIZE or erase_block & (erase_block - 1):
            raise StateError(
                f"erase_block {erase_block}: must be a power of two of at least {CLUSTER_SIZE}",
                what="erase_block",
                state="wrong",
            )
        if len(uuid) != 16:
            raise StateError(f"uuid {uuid!r}: must be 16 bytes", what="uuid", state="wrong")
        self.backend = backend
        self.start = start
        self.erase_block = erase_block
        self.uuid = uuid
        self.generation = generation
        self._extents: list[Extent] = []

    def next_generation(self) -> int:
        """A number that no life here had before."""
        self.generation += 1
        return self.generation

    def allocate(self, size: int) -> Extent:
        """An extent of at least `size` bytes in whole erase blocks; the medium grows where it can.

        DiskFullError where there is no room.
        """
        size = round_to_erase_blocks(size, self.erase_block)
        at = self.start
        for extent in sorted(self._extents, key=lambda extent: extent.offset):
            if extent.offset - at >= size:
                break
            at = extent.stop
        if at + size > self.backend.size:
            self.backend.grow(at + size)
        if at + size > self.backend.size:
            raise DiskFullError(
                f"{self.backend.url}: no room for {size} bytes", url=self.backend.url, needed=size
            )
        return self.adopt(at, size, self.next_generation())

    def adopt(self, offset: int, length: int, generation: int) -> Extent:
        """Take note of an extent that was given out before, and of the life that its journal is in.

        Takes the place of what is known of the same offset; nothing is written or discarded.
        """
        # The id is part of the seed of every seal, so another process must come to the same one.
        extent = Extent(offset // self.erase_block, offset, length, generation=generation)
        self._extents = [kept for kept in self._extents if kept.offset != offset]
        self._extents.append(extent)
        return extent

    def release(self, extent: Extent) -> None:
        """Take an extent back."""
        self._extents = [kept for kept in self._extents if kept.id != extent.id]
        self.backend.discard(extent.offset, extent.length)
