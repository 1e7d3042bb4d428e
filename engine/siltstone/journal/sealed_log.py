"""A sealed journal of its own: the writer and the reader of one life together, flushing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import (
    DamageError,
    EndOfJournalError,
    EntryError,
    PoisonedError,
    SiltstoneError,
    StateError,
)
from siltstone.format.constants import CLUSTER_SIZE, ENTRY_SIZE_MAX, SLOT_CLUSTERS
from siltstone.format.entries import Entry
from siltstone.journal.blocks import block_of
from siltstone.journal.log_reader import LogReader
from siltstone.journal.recovery import JournalRecovery, recover
from siltstone.journal.sealed import SealedJournal, log_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.format.seal import End, Position
    from siltstone.format.superblock import Extent
    from siltstone.journal.blocks import EntryBlock
    from siltstone.volume.backend import Backend

_FIRST = SLOT_CLUSTERS * CLUSTER_SIZE


class SealedLog:
    """One life of one sealed journal, to append to and to read. One thread at a time."""

    def __init__(self, backend: Backend, uuid: bytes, extent: Extent, end: End | None) -> None:
        self.backend = backend
        self.reader = LogReader(backend, uuid, extent)
        self.writer: SealedJournal | None = None
        self._end = end  # where a log that is only read ends
        self._cached: tuple[int, memoryview] | None = None

    @classmethod
    def fresh(cls, backend: Backend, uuid: bytes, extent: Extent) -> SealedLog:
        """A new life: both tail slots written and flushed."""
        if log_clusters(extent.length) < 1:
            raise StateError(
                f"an extent of {extent.length} bytes is too small for a sealed journal",
                what="extent",
                state="small",
            )
        log = cls(backend, uuid, extent, None)
        log.writer = SealedJournal(backend, uuid, extent, backend.flush)
        log.writer.prepare()
        backend.flush()
        return log

    @classmethod
    def resumed(cls, backend: Backend, uuid: bytes, extent: Extent, end: End) -> SealedLog:
        """A life that was stopped at `end` and goes on there; DamageError where its log ends elsewhere."""
        found = recover(backend, uuid, extent, clean=False)
        if found.end.position != end.position or found.cut_bytes:
            raise DamageError(
                f"journal {extent.id} was stopped at {tuple(end.position)}, but ends at {tuple(found.end.position)}",
                journal=extent.id,
                cluster=end.cluster,
                offset=extent.offset,
            )
        log = cls(backend, uuid, extent, None)
        tail, slot = log.reader.last_cluster(found.end)
        end = found.end._replace(slot=slot)
        log.writer = SealedJournal(
            backend, uuid, extent, backend.flush, end=end, tail=bytes(tail[: end.byte])
        )
        return log

    @classmethod
    def recovered(cls, backend: Backend, uuid: bytes, extent: Extent) -> tuple[SealedLog, JournalRecovery]:
        """A life that a crash ended, to be read up to its last batch."""
        found = recover(backend, uuid, extent, clean=False)
        return cls(backend, uuid, extent, found.end), found

    # ---- appending

    @property
    def poison(self) -> SiltstoneError | None:
        """Why nothing more is taken, or None."""
        return None if self.writer is None else self.writer.poison

    @property
    def end(self) -> End:
        """Where the log ends, once all of it is flushed."""
        if self.writer is not None:
            return self.writer.end
        assert self._end is not None
        return self._end

    @property
    def position(self) -> int:
        """Byte offset behind the last entry."""
        return _offset(self._last())

    def check_entries(self, entries: Sequence[Entry]) -> None:
        """EntryError for the first that is too large; the rest is checked as they are laid out."""
        for entry in entries:
            if entry.size > ENTRY_SIZE_MAX:
                raise EntryError(
                    f"an entry of {entry.size} bytes; at most {ENTRY_SIZE_MAX}",
                    type=entry.type,
                    size=entry.size,
                )

    def append(self, kind: int, payload: Buffer) -> int:
        """Append one entry as a batch of its own; its byte offset."""
        return self._appending().append(kind, payload)

    def append_stream(self, stream: NDArray[np.uint8]) -> list[int]:
        """Append packed entries as one batch; their byte offsets."""
        offsets: list[int] = self._appending().append_stream(stream).tolist()
        return offsets

    def flush(self) -> None:
        """Write the tail and flush the medium; a failure poisons the journal."""
        writer = self._appending()
        if not writer.begin_flush():
            return
        try:
            self.backend.flush()
        except SiltstoneError as error:
            writer.fail(error)
            raise
        writer.end_flush()

    def _appending(self) -> SealedJournal:
        if self.writer is None:
            raise PoisonedError(
                "nothing is appended to what a crash left: use a fresh journal",
                what="journal",
                cause="recovered",
            )
        return self.writer

    # ---- reading

    def read(self, offset: int) -> Entry:
        """The entry at a byte offset, verified with its cluster; from the tail, or through a cache of one cluster."""
        end = self._last()
        cluster, at = offset // CLUSTER_SIZE - SLOT_CLUSTERS, offset % CLUSTER_SIZE
        if cluster < 0 or (cluster, at) >= end:
            raise EndOfJournalError(
                f"offset {offset} is not in the log, which runs from {_FIRST} to {_offset(end)}",
                offset=offset,
                end=_offset(end),
            )
        data = self._tail() if cluster == end.cluster else self._cluster(cluster)
        size = data[at]
        if at + size > CLUSTER_SIZE or size < 2:
            raise EntryError(f"no entry starts at offset {offset}: size {size}", offset=offset, size=size)
        return Entry(data[at + 1], bytes(data[at + 2 : at + size]))

    def walk(self, start: int = _FIRST) -> Iterator[tuple[int, Entry]]:
        """Each entry from byte offset `start` on, with its offset."""
        for block in self.blocks():
            for offset, entry in block:
                if offset >= start:
                    yield offset, entry

    def blocks(self) -> Iterator[EntryBlock]:
        """All entries, verified, in blocks."""
        end = self._last()
        for first, data in self.reader.chunks(end.cluster):
            yield block_of(data, CLUSTER_SIZE, (first + SLOT_CLUSTERS) * CLUSTER_SIZE)
        if end.byte:
            tail = bytearray(self._tail())
            tail[4072:4074] = end.byte.to_bytes(2, "big")
            yield block_of(memoryview(tail), end.byte, (end.cluster + SLOT_CLUSTERS) * CLUSTER_SIZE)

    def _last(self) -> Position:
        return self.end_position if self.writer is None else self.writer.position

    @property
    def end_position(self) -> Position:
        """Where a log that is only read ends."""
        assert self._end is not None
        return self._end.position

    def _tail(self) -> memoryview:
        if self.writer is not None:
            return memoryview(self.writer.tail)
        assert self._end is not None
        return self.reader.last_cluster(self._end)[0]

    def _cluster(self, number: int) -> memoryview:
        if self._cached is None or self._cached[0] != number:
            _first, data = next(self.reader.chunks(number + 1, number))
            self._cached = number, data
        return self._cached[1]


def _offset(position: Position) -> int:
    return (position.cluster + SLOT_CLUSTERS) * CLUSTER_SIZE + position.byte
