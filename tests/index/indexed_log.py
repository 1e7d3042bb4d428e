"""A shard in memory: journals without a medium, and the index over them, written as a shard writes them."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.format.kernels import ClusterWriter, SealKey
from siltstone.index.layout import layout_bytes
from siltstone.index.table import LogIndex
from siltstone.index.types import KeyTypes
from siltstone.log_store.deletions import entry_starts
from siltstone.lookup.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

CLUSTER = 4096
SECRET = bytes(range(16))
HASH, SHORT, VARYING, KEYLESS, DELETE = 0x02, 0x10, 0x20, 0x30, 0x04

#: a fixed payload with its key first, a short one with its key at the end, one of any size, one without a key
TYPES = {HASH: (0, 32), SHORT: (3, 5), VARYING: (1, 12)}


def entry(kind: int, payload: bytes) -> bytes:
    return bytes([len(payload) + 2, kind]) + payload


def deletion(kind: int, key: bytes) -> bytes:
    return entry(DELETE, bytes([kind]) + key)


def packed(entries: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(entries), np.uint8)


def memory_for(segments: int, window_bytes: int, *, shared: bool = False) -> mmap.mmap:
    """Zeroed pages, private or shared as the index is told."""
    size = layout_bytes(segments, window_bytes)
    kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    memory = mmap.mmap(-1, size, flags=kind | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000))
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


class IndexedLog:
    """One shard: an index, an active journal, and those that it has rolled away from.

    :param segments, window_bytes: of the index
    :param journal_bytes: size of each journal
    """

    def __init__(
        self,
        segments: int = 4,
        window_bytes: int = 1 << 20,
        journal_bytes: int = 1 << 22,
        *,
        types: dict[int, tuple[int, int]] = TYPES,
        secret: bytes = SECRET,
        shared: bool = False,
        memory: Buffer | None = None,
    ) -> None:
        self.segments = segments
        self.journal_bytes = journal_bytes
        self.index = LogIndex(
            memory_for(segments, window_bytes, shared=shared) if memory is None else memory,
            KeyTypes(types),
            secret,
            segments,
            window_bytes,
            shared,
        )
        self.reader = Reader([self.index])
        self.journals: list[Any] = []
        #: of each closed journal: its last cluster, which that is, how much of it is used
        self.ends: list[tuple[bytes, int, int]] = []
        self.roll()

    def roll(self) -> None:
        """Close the active journal in tail slot 0 or 1 or in its log, in turn, and go on in a new one."""
        if self.journals:
            number, old = self.number, self.journals[-1]
            writer = self.writer
            place = (None, 0, 1)[(len(self.journals) - 1) % 3]
            at = (2 + writer.index) * CLUSTER if place is None else place * CLUSTER
            old[at : at + writer.used] = writer.tail_bytes()
            self.index.publish_end(number, writer.index, place)
            tail = bytearray(CLUSTER)
            writer.tail_copy(tail)
            self.ends.append((bytes(tail), writer.index, writer.used))
        self.number, journal, offset = self.new_journal()
        self.journals.append(journal)
        self.writer = ClusterWriter(SealKey(len(self.journals)), 1, b"", 0, 0, (0, 0))
        self.index.attach(self.number, journal, offset)
        self.index.publish_tail(self.number, 0, self.writer.tail_view(), 0)

    def new_journal(self) -> tuple[int, Any, int]:
        """The number of the next journal, its bytes, and where they lie in the volume."""
        journal = mmap.mmap(-1, self.journal_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return len(self.journals), journal, 0

    def apply(self, stream: np.ndarray) -> int:
        """Append a packed batch and index it; how many of its entries have no key."""
        positions = self.append(stream)
        if (positions == positions[0] + entry_starts(stream)).all():
            # One behind the other, as what fits a tail is: then a journal tells where the first one is.
            return self.index.apply(self.number, stream, int(positions[0]))
        return self.index.apply(self.number, stream, positions)

    def append(self, stream: np.ndarray) -> np.ndarray:
        """Append a packed batch, which the index is not told of; where its entries are."""
        entries, closed = self.writer.measure(stream)
        if (2 + self.writer.index + closed + 1) * CLUSTER > self.journal_bytes:
            self.roll()
            entries, closed = self.writer.measure(stream)
        positions = np.empty(entries, np.uint64)
        start, index = self.writer.used, self.writer.index
        staged = self.writer.stage(stream, positions)
        if staged is not None:
            at = (2 + index) * CLUSTER
            self.journals[-1][at : at + closed * CLUSTER] = bytes(staged)
        self.writer.take(closed)
        self.index.publish_tail(self.number, self.writer.index, self.writer.tail_view(), start)
        return positions

    def living(self, number: int, *, keep_deletes: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """What counts in a closed journal, in two parts: entries and their places."""
        tail, index, used = self.ends[number]
        closed = bytes(self.journals[number][2 * CLUSTER : (2 + index) * CLUSTER])
        return [
            self.index.living(number, data, first, last_used, keep_deletes)[:2]
            for data, first, last_used in ((closed, 0, CLUSTER), (tail, index, used))
        ]

    def get(self, kind: int, key: bytes) -> bytes | None:
        return self.reader.get(kind, key)
