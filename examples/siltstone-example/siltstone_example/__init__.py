"""An example of a plugin distribution for Siltstone."""

from siltstone_example.chunk_location import ChunkLocation
from siltstone_example.snapshot_note import NOTES, SnapshotNote

__all__ = ["NOTES", "ChunkLocation", "SnapshotNote"]
