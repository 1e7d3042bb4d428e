"""Entries: size byte, type byte, payload."""

from __future__ import annotations

from typing import NamedTuple

from siltstone.format.constants import ENTRY_HEADER_SIZE


class Entry(NamedTuple):
    """One entry of a journal.

    :param type: its type byte
    :param payload: what follows the two bytes of header [0-252 bytes]
    """

    type: int
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes in a journal, header included."""
        return len(self.payload) + ENTRY_HEADER_SIZE

    def to_bytes(self) -> bytes:
        """As it stands in a journal."""
        return bytes((self.size, self.type)) + self.payload
