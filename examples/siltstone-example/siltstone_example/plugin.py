"""What this distribution provides: the module that its entry point names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.plugin import hookimpl
from siltstone_example.chunk_location import CHUNK_LOCATION
from siltstone_example.segments import SEGMENTS
from siltstone_example.snapshot_note import NOTE_COLLECTOR, SNAPSHOT_NOTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone.plugin import BackendType, Consumer, EntryType


@hookimpl
def siltstone_entry_types() -> Iterator[EntryType]:
    """Provide `chunk_location` and `snapshot_note`."""
    yield CHUNK_LOCATION
    yield SNAPSHOT_NOTE


@hookimpl
def siltstone_backends() -> Iterator[BackendType]:
    """Provide ``segments:DIR``."""
    yield SEGMENTS


@hookimpl
def siltstone_consumers() -> Iterator[Consumer]:
    """Provide the collector of notes."""
    yield NOTE_COLLECTOR
