"""The writer of one life of one sealed journal: appends, flushes, and says where the log ends.

One writer at a time (the shard's lock). The order of writes and flushes is docs/format.md's; each rule
there stands because a crash broke a model without it.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Protocol

import numpy as np

from siltstone.errors import DiskFullError, EntryError, JournalFullError, PoisonedError, SiltstoneError
from siltstone.format.constants import (
    BODY_SIZE,
    CLUSTER_SIZE,
    ENTRY_HEADER_SIZE,
    ENTRY_SIZE_MAX,
    SLOT_CLUSTERS,
    UNFLUSHED_CLUSTERS_MAX,
)
from siltstone.format.kernels import ClusterWriter
from siltstone.format.seal import End, Position, journal_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import uint64
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.format.superblock import Extent


def log_clusters(length: int) -> int:
    """Log clusters of an extent of `length` bytes; the last is only ever a tail."""
    return length // CLUSTER_SIZE - SLOT_CLUSTERS


class Writable(Protocol):
    """What a journal writes to: a backend, or something that passes its writes on."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at byte `offset` of the volume, or raise."""


class SealedJournal:
    """Appends to one journal. Not durable before :meth:`begin_flush`, a flush of the medium, :meth:`end_flush`.

    :param backend: the medium
    :param uuid: of the volume
    :param extent: where; its generation is this life
    :param flush: flushes the medium; used where a batch alone passes the bound of unflushed clusters
    :param end: None for a fresh journal, whose slots :meth:`prepare` writes; else the end that a clean close
        left, with the entries of its last cluster in `tail`
    """

    def __init__(
        self,
        backend: Writable,
        uuid: bytes,
        extent: Extent,
        flush: Callable[[], None],
        *,
        end: End | None = None,
        tail: Buffer = b"",
    ) -> None:
        self.backend = backend
        self.extent = extent
        self.key = journal_key(uuid, extent.id, extent.generation)
        start = end or End(0, 0, 0, 0)
        self.writer = ClusterWriter(
            self.key, extent.generation, tail, start.cluster, start.sequence, start.position
        )
        #: the bytes of the unwritten tail cluster, as they change
        self.tail = self.writer.tail_view()
        self.clusters = log_clusters(extent.length)
        #: why nothing more is acknowledged here, or None
        self.poison: SiltstoneError | None = None
        #: whether a batch was given up after some of it was written: the journal ends at its last boundary
        self.given_up = False
        self._flush = flush
        self._slot = 0 if start.slot is None else start.slot  # the one that holds the acknowledged end
        self._copy = mmap.mmap(-1, CLUSTER_SIZE)
        self._flushed: Position = start.position
        self._flushing: Position | None = None
        self._unflushed = 0  # log clusters written since the last flush that succeeded
        #: whether the medium also says that all of it is durable (the idle note)
        self.is_noted = True

    # ---- state

    @property
    def position(self) -> Position:
        """Behind the last entry."""
        return Position(*self.writer.position)

    @property
    def is_flushed(self) -> bool:
        """Whether all that was appended is durable."""
        # A flush for the bound may have covered what was then given up.
        return self._flushed >= self.writer.position

    @property
    def has_unflushed_writes(self) -> bool:
        """Whether a flush that fails now may have lost something of this journal."""
        return self._unflushed > 0 or self._flushing is not None

    @property
    def end(self) -> End:
        """Where the log ends, once all of it is flushed."""
        assert self.is_flushed
        return End(self.writer.index, self.writer.used, self._slot, self.writer.sequence)

    @property
    def written_end(self) -> End:
        """Where the log ends once a flush of the medium covers what :meth:`begin_flush` wrote."""
        slot = self._slot if self._flushing is None else 1 - self._slot
        return End(self.writer.index, self.writer.used, slot, self.writer.sequence)

    @property
    def room(self) -> int:
        """Bytes of entries that surely still fit, whatever their sizes."""
        whole = self.clusters - 1 - self.writer.index
        return whole * (BODY_SIZE - 256) + max(0, BODY_SIZE - 256 - self.writer.used)

    # ---- life

    def prepare(self) -> None:
        """Write both slots as empty tails; the caller flushes before the superblock calls the journal active."""
        for slot in (0, 1):
            self._write_slot(slot)

    def append(self, kind: int, payload: Buffer) -> int:
        """Append one entry as a batch of its own; its byte offset in the extent.

        JournalFullError where it does not fit; nothing is changed then.
        """
        size = memoryview(payload).nbytes + ENTRY_HEADER_SIZE
        if size > ENTRY_SIZE_MAX:
            raise EntryError(
                f"an entry of {size} bytes, header included; at most {ENTRY_SIZE_MAX}", type=kind, size=size
            )
        stream = np.frombuffer(bytes((size, kind)) + bytes(payload), np.uint8)
        offset = self.append_to_tail(stream)
        return int(self.append_stream(stream)[0]) if offset < 0 else offset

    def append_to_tail(self, stream: NDArray[np.uint8]) -> int:
        """Append packed entries as one batch, in memory alone; the byte offset of the first in the extent.

        The others follow it. -1, with nothing changed, where that would close a cluster: then it is for
        :meth:`append_stream`, which also says what else is amiss. EntryError where the stream is none of entries.
        """
        self.check()
        offset = -1 if self.given_up else self.writer.append(stream)
        if offset >= 0:
            self.is_noted = False
        return offset

    def append_stream(self, stream: NDArray[np.uint8], *, flushes: bool = True) -> NDArray[uint64]:
        """Append packed entries as one batch; the byte offset of each in the extent.

        Clusters that it closes are written before this returns, not flushed. JournalFullError where the batch
        does not fit the rest of the journal, EntryError where the stream is no sequence of entries: nothing
        is changed then. A write that fails poisons the journal; readers still find what was there before.

        :param flushes: without it JournalFullError also where so much is not flushed that it would have to be before
        """
        self.check()
        if self.given_up:
            raise JournalFullError(
                f"journal {self.extent.id}: a batch was given up here", needed=len(stream), room=0
            )
        entries, closed = self.writer.measure(stream)
        if entries == 0:
            raise EntryError("an empty batch", size=0)
        room = self.clusters - self.writer.index
        if closed and not flushes:
            room = min(room, UNFLUSHED_CLUSTERS_MAX + 1 - self._unflushed)
        if closed >= room:
            raise JournalFullError(
                f"journal {self.extent.id}: a batch of {len(stream)} bytes needs {closed} more clusters;"
                f" {self.clusters - 1 - self.writer.index} are left",
                needed=len(stream),
                room=self.room,
            )
        positions = np.empty(entries, np.uint64)
        staged = self.writer.stage(stream, positions)
        try:
            if staged is not None:
                self._write_staged(staged, closed)
            self.writer.take(closed)
        except BaseException:
            # Also an interrupt: a cluster is written once, so what is there now can never become part of another
            # batch.
            self.given_up = True
            raise
        self.is_noted = False
        return positions

    def fits(self, stream: NDArray[np.uint8]) -> bool:
        """Whether the packed entries fit the rest of the journal; EntryError where they are none."""
        _entries, closed = self.writer.measure(stream)
        return self.writer.index + closed < self.clusters

    def _write_staged(self, staged: memoryview, closed: int) -> None:
        """Write closed clusters, never more than the bound beyond what a flush covered."""
        first = self.writer.index
        done = 0
        while done < closed:
            if self._unflushed == UNFLUSHED_CLUSTERS_MAX:
                self._bound_flush(first + done)
                self.writer.restamp(done, closed)
            count = min(closed - done, UNFLUSHED_CLUSTERS_MAX - self._unflushed)
            at = self.extent.offset + (SLOT_CLUSTERS + first + done) * CLUSTER_SIZE
            # Counted before the write: one that fails half way has written something too.
            self._unflushed += count
            piece = memoryview(staged)[done * CLUSTER_SIZE : (done + count) * CLUSTER_SIZE]
            self._guarded(self.backend.write, at, piece)
            done += count

    def _bound_flush(self, clusters: int) -> None:
        """Flush `clusters` written clusters without a tail copy."""
        self._guarded(self._flush)
        self._unflushed = 0
        self._flushed = max(self._flushed, Position(clusters, 0))
        self.writer.durable = self._flushed

    # ---- flushing

    def begin_flush(self, *, note: bool = False, pieces: list[tuple[int, Buffer]] | None = None) -> bool:
        """Write the tail's copy to the slot that does not hold the acknowledged one; False where nothing is new.

        The caller flushes the medium next, then calls :meth:`end_flush`, or :meth:`fail` where that failed. One that
        was begun before and did not end, as interrupts may leave it, counts for nothing.
        With `note` the tail is written although nothing is new, to put its `durable` on the medium.

        :param pieces: gets (offset, copy) instead, for the caller to write before that flush, unchanged until the next
            call here; :meth:`write_failed` where that fails
        """
        self.check()
        if self.is_noted if note else self.is_flushed:
            return False
        position = self.position
        # Marked first: from here on a flush that fails may have lost the copy.
        self._flushing = position
        try:
            self._write_slot(1 - self._slot, pieces)
        except BaseException:
            self.cancel_flush()
            raise
        return True

    def write_failed(self, error: SiltstoneError) -> None:
        """What :meth:`begin_flush` left to be written could not be: nothing is acknowledged here any more, unless it
        is only space that was lacking."""
        if isinstance(error, DiskFullError):
            self.cancel_flush()
        else:
            self.fail(error)

    def cancel_flush(self) -> None:
        """The flush that :meth:`begin_flush` began was interrupted: what it was to cover is not durable yet."""
        # The next one writes the same slot: the other one still holds what was acknowledged last.
        self._flushing = None

    def end_flush(self) -> None:
        """The medium was flushed after :meth:`begin_flush`: what was appended before it is durable."""
        self.check()
        covered, position = self._flushing, self.position
        assert covered is not None
        # A copy that only repeats what was flushed carries the durable position itself.
        noted = covered == position and self._flushed >= covered
        flushed = max(self._flushed, covered)  # a flush for the bound may have gone further meanwhile
        # Clusters that were written while the flush ran are not covered by it.
        unflushed = max(0, position.cluster - flushed.cluster)
        # Nothing is called from here on: no interrupt comes in between.
        self._flushing, self._slot = None, 1 - self._slot
        self.is_noted, self._flushed, self._unflushed = noted, flushed, unflushed
        self.writer.durable = flushed

    def fail(self, error: SiltstoneError) -> None:
        """A flush failed that may have covered this journal: nothing is acknowledged here any more."""
        self._flushing = None
        if self.poison is None:
            self.poison = error.to_keep()

    def _write_slot(self, slot: int, pieces: list[tuple[int, Buffer]] | None = None) -> None:
        self.writer.tail_copy(self._copy)
        offset = self.extent.offset + slot * CLUSTER_SIZE
        if pieces is None:
            self._guarded(self.backend.write, offset, self._copy)
        else:
            pieces.append((offset, self._copy))

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except DiskFullError:
            raise  # no failure of the medium: what is durable stays so, and space may come
        except SiltstoneError as error:
            self.fail(error)
            raise

    def check(self) -> None:
        """PoisonedError where nothing more is acknowledged here."""
        if self.poison is not None:
            raise PoisonedError(
                f"journal {self.extent.id}: an earlier write or flush failed ({self.poison}); what was flushed"
                " before is safe; close the store, mend the medium, open it again",
                what=f"journal {self.extent.id}",
                cause=str(self.poison),
            )
