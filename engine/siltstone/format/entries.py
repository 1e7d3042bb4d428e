"""Entries: size byte, type byte, payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from siltstone.errors import EntryError
from siltstone.format.constants import ENTRY_HEADER_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer


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


def payload_bytes(payload: Buffer) -> bytes:
    """A copy of a payload; EntryError for what holds no bytes."""
    try:
        return memoryview(payload).cast("B").tobytes()
    except TypeError as error:
        raise EntryError(f"payload {payload!r:.80}: must be bytes: {error}") from error
