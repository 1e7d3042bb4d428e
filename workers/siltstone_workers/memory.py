"""The memory that a worker shares with its readers: the indexes of its shards, and mirrors of their journals."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

from siltstone.errors import WorkerError
from siltstone.log_store.memory import shared_memory
from siltstone.log_store.mirror import MirrorSpace
from siltstone.volume.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siltstone.log_store.memory import IndexSize


class WorkerMemory:
    """Two runs of memory without a name, one of them for mirrors and mostly never touched.

    A descriptor each and not one for every shard: a process has few. They are closed with the last who uses them.

    :param index: descriptor of the indexes
    :param mirrors: descriptor of the mirrors
    :param sizes: the shape of the index of each shard, in their order
    """

    def __init__(self, index: int, mirrors: int, sizes: Sequence[IndexSize]) -> None:
        self.index = index
        self.mirrors = mirrors
        self.sizes = tuple(sizes)
        self._starts = [0, *accumulate(size.address_bytes for size in self.sizes)]

    def __del__(self) -> None:
        # A lookup in what a dead worker left may still have to map a mirror: the numbers must not be others' by then.
        for descriptor in (self.index, self.mirrors):
            with suppress(OSError):
                os.close(descriptor)

    @classmethod
    def share(cls, sizes: Sequence[IndexSize]) -> WorkerMemory:
        """Zeroed memory for shards of these sizes; WorkerError where the system does not give it."""
        size = sum(size.address_bytes for size in sizes)
        try:
            index = shared_memory("siltstone index", size)
            try:
                mirrors = MirrorSpace.share(len(sizes))
            except BaseException:
                os.close(index)
                raise
        except OSError as error:
            raise WorkerError(
                f"memory to share with workers, {size} bytes of address space: {error.strerror}; where the size of"
                " files or the number of descriptors is limited (ulimit -f, -n), open with workers=0",
                cause=str(error),
            ) from error
        return cls(index, mirrors, sizes)

    @classmethod
    def received(cls, index: int, mirrors: int, sizes: Sequence[IndexSize]) -> WorkerMemory:
        """Memory that another process shares, its descriptors owned from now on.

        ValueError where it is, or could become, shorter than what is mapped of it: reading there would be fatal.
        """
        memory = cls(index, mirrors, sizes)
        _check_lasting(index, memory._starts[-1])
        _check_lasting(mirrors, len(sizes) * MirrorSpace.BYTES)
        return memory

    def map_index(self, place: int, *, writable: bool) -> Mapping:
        """Map the index of the shard at this place in the order of `sizes`."""
        mapping = Mapping(self.index, self._starts[place], self.sizes[place].address_bytes, writable)
        mapping.avoid_huge_pages()
        return mapping

    def mirrors_of(self, place: int) -> MirrorSpace:
        """Where the mirrors of the shard at this place are, while this memory lives."""
        return MirrorSpace(self.mirrors, place)


def _check_lasting(descriptor: int, size: int) -> None:
    """ValueError unless this is shared memory of at least `size` bytes that nobody can make shorter."""
    found = os.fstat(descriptor).st_size
    if found < size:
        raise ValueError(f"shared memory of {found} bytes, where {size} are needed")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ValueError(f"no shared memory: {error.strerror}") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise ValueError("shared memory that is not sealed against becoming shorter")
