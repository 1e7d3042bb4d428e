"""A reader that knows the RFC and nothing of ours: a size, a type, and that clusters have 4096 bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE, END = 0xFF, 0x01


def walk(image: bytes, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(offset, type, payload) of each entry, ENDs too, from `offset` to NONE or the end of the image.

    It trusts what it reads, as the RFC's code does; only a size that leads nowhere stops it, by an error.
    """
    while offset < len(image):
        size, kind = image[offset], image[offset + 1]
        if kind == NONE:  # decided on the type byte alone: an END may have 255 bytes
            return
        if size < 2:
            raise ValueError(f"size {size} at {offset}")
        yield offset, kind, image[offset + 2 : offset + size]
        offset += size
