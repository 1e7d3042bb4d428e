"""Pipes between core and worker: how they are made, how much they hold, and the ways in which they end."""

from __future__ import annotations

import fcntl
import os
from typing import Any, Final, NamedTuple

from siltstone.volume.descriptors import above_standard
from siltstone_workers.frames import FRAME_MIN

#: what a pipe is asked to hold [bytes]
_PIPE_SIZE: Final = 1024 * 1024
#: what a pipe usually holds: it is not asked for that [bytes]
_PIPE_SIZE_MIN: Final = 64 * 1024


class ChannelClosedError(Exception):
    """The other end is gone, or this one was closed."""


class SilentError(Exception):
    """The other end took nothing for as long as was waited."""


class Message(NamedTuple):
    """What came through: the message, and its bulk."""

    fields: list[Any]
    bulk: memoryview | None


def make_pipe() -> tuple[int, int]:
    """A pipe, as large as the system allows up to 1 MiB: (read end, write end), neither inherited."""
    ends = os.pipe2(os.O_CLOEXEC)
    reading, writing = above_standard(ends[0]), above_standard(ends[1])
    size = _PIPE_SIZE
    while size > _PIPE_SIZE_MIN:
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            # Beyond what this user's pipes may hold; half as much may still be within it.
            size //= 2
        else:
            break
    return reading, writing


def make_pipes(count: int) -> list[tuple[int, int]]:
    """So many pipes, or none where the system does not give all of them."""
    made: list[tuple[int, int]] = []
    try:
        while len(made) < count:
            made.append(make_pipe())
    except BaseException:
        for end in (end for pipe in made for end in pipe):
            os.close(end)
        raise
    return made


def pipe_size(descriptor: int) -> int:
    """Bytes that a pipe holds."""
    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)


def window_of(descriptor: int) -> int:
    """Bytes of counted messages (:func:`siltstone_workers.frames.credit_of`) that may be under way in a pipe.

    Three quarters of it: three long frames, so that one is on its way while another is dealt with and a third waits.
    What is not counted has the rest.
    """
    return pipe_size(descriptor) * 3 // 4


def frame_limit(descriptor: int) -> int:
    """Bytes that the body of one frame may have on this pipe: a quarter of it, so that some are under way at once."""
    return max(FRAME_MIN, pipe_size(descriptor) // 4)
