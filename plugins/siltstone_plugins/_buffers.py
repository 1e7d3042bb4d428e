"""Memory for transfers: page-aligned where O_DIRECT asks for it."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: bytes that one bounce buffer holds, and so the most that is copied at a time
BOUNCE_SIZE: Final = 1 << 20
# Below this a copy costs less than asking for the address.
_COPY_BELOW: Final = 64 * 1024


def flat(data: Buffer) -> memoryview:
    """Return `data` as a run of bytes, copied only where it is not one already."""
    view = memoryview(data)
    if view.ndim == 1 and view.format == "B" and view.c_contiguous:
        return view
    if view.nbytes and view.c_contiguous:
        try:
            return view.cast("B")
        except TypeError:  # a format that casts do not know, such as a structured array's
            pass
    return memoryview(view.tobytes())


def aligned(length: int) -> memoryview:
    """Return a new writable buffer of `length` bytes that begins on a page."""
    if length == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def is_aligned(view: memoryview, alignment: int) -> bool:
    """Say whether a large `view` can go to O_DIRECT as it lies; a small one never."""
    if len(view) < _COPY_BELOW:
        return False
    address: int = np.frombuffer(view, dtype=np.uint8).ctypes.data
    return address % alignment == 0


class BouncePool:
    """Aligned buffers of BOUNCE_SIZE bytes, used again and again. Safe between threads."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Return a buffer that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return aligned(BOUNCE_SIZE)

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back; more than a few are not kept."""
        if len(self._free) < 4:
            self._free.append(buffer)
