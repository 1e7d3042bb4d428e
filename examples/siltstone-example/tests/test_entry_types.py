"""The entry types of this distribution keep what the engine relies on."""

from __future__ import annotations

from siltstone_example.chunk_location import CHUNK_LOCATION, ChunkLocation
from siltstone_example.snapshot_note import SNAPSHOT_NOTE, NoteCollector, SnapshotNote

from siltstone.plugin import ReplayBatch
from siltstone.testing.entry_type import EntryTypeConformance


class TestChunkLocation(EntryTypeConformance):
    entry_type = CHUNK_LOCATION
    examples = (
        ChunkLocation(chunk=bytes(range(32)), pack="2024-05.pack", offset=4096, length=65536),
        ChunkLocation(chunk=bytes(32), pack="p", offset=0, length=0),
        ChunkLocation(chunk=b"\xff" * 32, pack="ü" * 100, offset=2**64 - 1, length=2**32 - 1),
    )


class TestSnapshotNote(EntryTypeConformance):
    entry_type = SNAPSHOT_NOTE
    examples = (
        SnapshotNote(1_700_000_000, "before the upgrade"),
        SnapshotNote(0, ""),
        SnapshotNote(1, "ß" * 122),
    )


def test_the_collector_keeps_notes_in_order_and_forgets_what_was_taken() -> None:
    notes = (SnapshotNote(2, "second"), SnapshotNote(1, "first"))
    collector = NoteCollector()
    for note in notes:
        collector.consume(ReplayBatch(0, SNAPSHOT_NOTE, (SNAPSHOT_NOTE.to_payload(note),)))
    assert collector.take() == notes
    assert collector.take() == ()
