"""Entry type `snapshot_note`: a line of text about a snapshot, and the consumer that collects them.

It has no key: nobody asks a store for one note. They come back when the store is opened, in the order in
which they were put. The payload is the time (u64, big-endian, seconds since 1970) and the text in UTF-8.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from siltstone.plugin import Consumer, EntryType

if TYPE_CHECKING:
    from siltstone.plugin import ReplayBatch

_TIME: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class SnapshotNote:
    """A note.

    :param taken_at: when the snapshot was taken [s since 1970]
    :param text: at most 244 bytes as UTF-8
    """

    taken_at: int
    text: str


def encode(note: SnapshotNote) -> bytes:
    """Return the payload of `note`; the engine refuses one that is too long."""
    return _TIME.pack(note.taken_at) + note.text.encode()


def decode(payload: bytes) -> SnapshotNote:
    """Return the note in `payload`; ValueError or struct.error where it is none."""
    [taken_at] = _TIME.unpack_from(payload)
    return SnapshotNote(taken_at, payload[_TIME.size :].decode())


SNAPSHOT_NOTE: Final = EntryType(
    id=0x61, name="snapshot_note", version=1, record=SnapshotNote, encode=encode, decode=decode
)


class NoteCollector:
    """The notes that consumers were given. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: list[SnapshotNote] = []

    def consume(self, batch: ReplayBatch) -> None:
        """Keep the notes of one batch. One that cannot be decoded fails the opening of the store."""
        notes = [batch.entry_type.from_payload(payload) for payload in batch.payloads]
        with self._lock:
            self._notes += notes

    def take(self) -> tuple[SnapshotNote, ...]:
        """Return the notes kept so far, and forget them: the next store to be opened begins anew."""
        with self._lock:
            taken, self._notes = tuple(self._notes), []
        return taken


#: what the stores opened since the last ``NOTES.take()`` held
NOTES: Final = NoteCollector()

NOTE_COLLECTOR: Final = Consumer(
    name="note_collector", entry_types=frozenset({"snapshot_note"}), consume=NOTES.consume
)
