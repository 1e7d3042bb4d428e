"""Moves descriptors off the numbers of the standard streams."""

from __future__ import annotations

import fcntl
import os
from typing import Final

_FIRST_FREE: Final = 3


def above_standard(descriptor: int) -> int:
    """The same open file under a number above 2; `descriptor`, owned from now on, is closed where that is another.

    A program may run with its standard streams closed, and the kernel gives their numbers to what is opened next.
    A message to standard error would then be written over the first superblock of a volume.
    """
    if descriptor >= _FIRST_FREE:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(descriptor)
