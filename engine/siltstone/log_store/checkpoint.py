"""The index of a log store as it stood: taken out of memory for a checkpoint, and brought back from one."""

from __future__ import annotations

import logging
import mmap
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from siltstone.errors import MediumError
from siltstone.format.checkpoint import (
    CheckpointHeader,
    CoveredJournal,
    decode_header,
    digest_of,
    encode_header,
    header_size,
    places_of,
    promised_size,
    sizes_of,
)
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import End, journal_seed
from siltstone.index import segments
from siltstone.index.layout import JOURNALS_MAX
from siltstone.log_store.log_store import LogStore
from siltstone.log_store.older_views import by_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siltstone.format.superblock import Extent
    from siltstone.index.mapped import MappedIndex
    from siltstone.log_store.memory import IndexSize
    from siltstone.volume.backend import Backend

_log = logging.getLogger(__name__)
#: bytes written at once
_PIECE_BYTES = 4 << 20


class Covered(NamedTuple):
    """A journal, and the end up to which a checkpoint covers it."""

    extent: Extent
    end: End


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index as it stood, with room for the header of its checkpoint before it.

    :param header: without checksums
    :param data: the extent's bytes, header not yet in them
    """

    header: CheckpointHeader
    data: mmap.mmap

    @classmethod
    def take(cls, store: LogStore, shard: int, journals: Sequence[Covered]) -> Snapshot:
        """Copy the index of a store; nothing may change it meanwhile, and all that it names is durable.

        :param journals: all that it names, oldest first, each with what of it is in the index
        """
        buckets, slots = segments.shape(store.index)
        start = header_size(len(journals), len(buckets))
        starts, stop = places_of(buckets, slots, start)
        data = mmap.mmap(-1, stop)
        segments.copy_out(store.index, starts, data)
        header = CheckpointHeader(
            shard=shard,
            layout=segments.LAYOUT,
            records=store.index.records,
            older=older_of(store),
            keys=store.index.types.packed(),
            journals=tuple(
                CoveredJournal(
                    one.extent.id,
                    one.extent.generation,
                    store.number_of(one.extent),
                    *segments.counts(store.index, store.number_of(one.extent)),
                )
                for one in journals
            ),
            covered=journals[-1].end.position,
            buckets=buckets,
            slots=slots,
            checksums=np.zeros(len(buckets), np.uint64),
        )
        return cls(header, data)

    def write(self, backend: Backend, uuid: bytes, extent: Extent) -> None:
        """Write it to its extent. Not durable yet."""
        seed = journal_seed(uuid, extent.id, extent.generation)
        header = self.header
        sums = segments.checksums(self.data, header.starts, sizes_of(header.buckets, header.slots), seed)
        self.data[: header.size] = encode_header(replace(header, checksums=sums), seed)
        with memoryview(self.data) as view:
            for at in range(0, len(view), _PIECE_BYTES):
                with view[at : at + _PIECE_BYTES] as piece:
                    backend.write(extent.offset + at, piece)


def read_header(backend: Backend, uuid: bytes, extent: Extent) -> CheckpointHeader:
    """The header of a checkpoint; ValueError where it is not whole, MediumError where it cannot be read."""
    seed = journal_seed(uuid, extent.id, extent.generation)
    first = bytes(backend.read(extent.offset, CLUSTER_SIZE))
    size = promised_size(first)
    if size > extent.length:
        raise ValueError(f"a header of {size} bytes in an extent of {extent.length}")
    data = first if size == len(first) else bytes(backend.read(extent.offset, size))
    return decode_header(data, seed, extent.length)


def fault_of(backend: Backend, uuid: bytes, extent: Extent) -> str | None:
    """What is wrong with the bytes of a checkpoint, or None where they are as they were written."""
    seed = journal_seed(uuid, extent.id, extent.generation)
    try:
        header = read_header(backend, uuid, extent)
        starts, nothing = header.starts, np.zeros(1, np.uint64)
        for number in np.flatnonzero(header.slots).tolist():
            length = header.length_of(number)
            at = extent.offset + int(starts[number])
            data = backend.read(at, -(-length // CLUSTER_SIZE) * CLUSTER_SIZE)
            sums = segments.checksums(data, nothing, np.array([length], np.uint64), seed)
            if sums[0] != header.checksums[number]:
                return f"segment {number}, at byte {at} of the volume, is damaged"
    except (ValueError, MediumError) as error:
        return str(error)
    return None


def older_of(store: LogStore) -> int:
    """What tells the hash stores of a shard from others."""
    parts = [part for parts in reversed(by_store(store.hash_stores)) for part in parts]
    return digest_of([(part.id, part.generation) for part in parts])


class Restoring:
    """Brings the index of a log store back from a checkpoint, segment by segment, as they are needed.

    What is not as it was written is made anew by a replay of what the checkpoint covers. Threads may share it.

    :param extent: the checkpoint
    :param header: what it says of itself; it fits the index that it is for
    :param journals: what it covers
    """

    def __init__(
        self,
        store: LogStore,
        extent: Extent,
        header: CheckpointHeader,
        journals: Sequence[Covered],
    ) -> None:
        # Not the store itself, nor its index: that holds this, and nobody would let go of the journals' maps.
        self._backend: Backend = store.backend
        self._uuid: bytes = store.uuid
        self._size: IndexSize = store.size
        self._extent = extent
        self._header = header
        self._journals = tuple(journals)
        self._hash_stores = store.hash_stores
        self._starts = header.starts
        self._seed = journal_seed(store.uuid, extent.id, extent.generation)
        self._numbers = np.zeros(JOURNALS_MAX, np.uint8)
        self._numbers[[journal.number for journal in header.journals]] = 1
        self._lock = threading.Lock()
        #: held by who waits for one segment: locks have no order, and who brings all back would keep the other
        self._first = threading.Lock()

    def begin(self, store: LogStore) -> None:
        """Let the index of the store, empty but for its journals, know of what it waits for."""
        for journal in self._header.journals:
            segments.set_counts(
                store.index,
                journal.number,
                journal.live,
                journal.entries,
                journal.deletions,
                journal.keyless,
            )
        segments.expect(
            store.index, self._header.buckets, self._header.slots, self._header.records, self._load
        )

    def _load(self, index: MappedIndex, segment: int) -> None:
        if segment >= 0:
            with self._first:
                self._load_one(index, segment)
            return
        for number in range(len(self._starts)):
            with self._first:
                pass
            self._load_one(index, number)

    def _load_one(self, index: MappedIndex, number: int) -> None:
        with self._lock:
            if segments.waits(index, number) and not self._bring_back(index, number):
                self._make_anew(index)

    def _bring_back(self, index: MappedIndex, number: int) -> bool:
        length = self._header.length_of(number)
        at = self._extent.offset + int(self._starts[number])
        try:
            data = self._backend.read(at, -(-length // CLUSTER_SIZE) * CLUSTER_SIZE)
        except MediumError as error:
            _log.warning("checkpoint %d cannot be read: %s", self._extent.id, error)
            return False
        checksum = int(self._header.checksums[number])
        return segments.bring_back(
            index, number, memoryview(data)[:length], checksum, self._seed, self._numbers
        )

    def _make_anew(self, index: MappedIndex) -> None:
        """Replay what the checkpoint covers, for all segments that still wait."""
        _log.warning(
            "%s: checkpoint %d at byte %d is damaged: everything it covers is replayed",
            self._backend.url,
            self._extent.id,
            self._extent.offset,
        )
        other = LogStore(self._backend, self._uuid, index.types, self._size)
        # What is deleted must be remembered where one of these has it.
        other.show_hash_stores(self._hash_stores)
        for one, journal in zip(self._journals, self._header.journals, strict=True):
            other.add(one.extent, journal.number)
            other.replay(one.extent, one.end)
        for number in range(len(self._starts)):
            if segments.waits(index, number):
                segments.put_back(index, number, *segments.segment_bytes(other.index, number))
