"""Getting rid of what the page cache holds, and finding out whether that worked."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

import numpy as np

#: the largest run of pages that the cache handles as one, where pages have 4 KiB [bytes]
_PIECE_MAX: Final = 2 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.mincore.restype = ctypes.c_int


def page_range(offset: int, length: int) -> tuple[int, int]:
    """Return start and end of the whole pages that a range touches [bytes]."""
    page = mmap.PAGESIZE
    return offset - offset % page, -(-(offset + length) // page) * page


def drop(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to drop the clean pages of a range, and of its surroundings; what is mapped stays."""
    # The cache keeps pages in larger pieces, which go whole or not at all.
    start = offset - offset % _PIECE_MAX
    end = -(-(offset + length) // _PIECE_MAX) * _PIECE_MAX
    os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


def is_cached(descriptor: int, offset: int, length: int) -> bool:
    """Say whether any page of a range may still be in the cache; True where the kernel does not tell.

    :param offset: multiple of the page size; the range lies inside the file
    """
    if length == 0:
        return False
    try:
        mapping = mmap.mmap(descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)
    except (OSError, ValueError):
        return True
    try:
        pages = -(-length // mmap.PAGESIZE)
        resident = np.ones(pages, dtype=np.uint8)
        # Only the address is used: no page is touched, so that a file cut short cannot raise SIGBUS.
        address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
        if _libc.mincore(address, length, resident.ctypes.data) != 0:
            return True
        return bool((resident & 1).any())
    finally:
        mapping.close()
