"""One shard: appends to its active journal, keeps its index in step, rolls to the next journal.

Lock order: the group's pack lock, its flush lock, the shard's spare lock or lock, the volume's. Readers take none.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, JournalFullError, LogStoreFullError, PoisonedError, SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE, SLOT_CLUSTERS
from siltstone.format.kernels import measure_stream
from siltstone.journal.sealed import SealedJournal
from siltstone.shard import space
from siltstone.shard.batches import delete_stream
from siltstone.shard.changes import Give, Roll, TakeEmpty, TakeNext
from siltstone.shard.sizing import next_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from siltstone.format.seal import End
    from siltstone.format.superblock import Extent
    from siltstone.log_store.log_store import LogStore
    from siltstone.volume.shard_volume import ShardVolume

#: seconds without an append after which a flushed tail is written once more
IDLE_SECONDS = 1.0


class Shard:
    """The part of the key space with one number: one log store, one active journal.

    :param number: which shard
    :param volume: where its extents are
    :param store: its index and journals, replayed
    :param journal: the active one, or None where there was no space for a fresh one
    """

    def __init__(
        self, number: int, volume: ShardVolume, store: LogStore, journal: SealedJournal | None
    ) -> None:
        self.number = number
        self.volume = volume
        self.store = store
        self.journal = journal
        self.lock = threading.Lock()
        self.spare: SealedJournal | None = None
        self._spare_lock = threading.Lock()
        self._last_change = volume.ports.clock()
        #: the extent that was the shard's reserve and became a journal for deletions
        self._reserve: Extent | None = None
        #: why nothing more is taken: an error that made the index differ from the journals, or the shard is closed
        self.broken: SiltstoneError | None = None

    # ---- writing

    def append(self, stream: NDArray[np.uint8], records: int) -> None:
        """Append packed entries as one batch and index them; `records` of them may bring a new key.

        The caller has seen that the batch fits a largest journal. Not durable yet. JournalFullError where
        the active journal must be rolled first: nothing is changed then.
        """
        with self.lock:
            self._append(stream, records)

    def try_append(self, stream: NDArray[np.uint8], records: int) -> bool:
        """As :meth:`append`, where that waits for no flush and no other thread; False, with nothing done, else."""
        # Whoever rolls holds it for as long as a flush takes.
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self.check()
            if self.last_room or self.journal is None or not self.journal.fits_unflushed(stream):
                return False
            self._append(stream, records)
        finally:
            self.lock.release()
        return True

    def _append(self, stream: NDArray[np.uint8], records: int, *, deletes: bool = False) -> None:
        journal = self._writable()
        if self.last_room and not deletes:
            raise JournalFullError(
                f"shard {self.number}: what is left is for deletions", needed=len(stream), room=0
            )
        self.store.check_room(records)
        before = journal.writer.position
        try:
            positions = journal.append_stream(stream)
            self._last_change = self.volume.ports.clock()
            self.store.show_tail(journal, before[1])
            self.store.apply(journal.extent, stream, positions)
        except MemoryError as error:
            if journal.writer.position == before:
                raise
            self.broken = LogStoreFullError(
                f"shard {self.number}: {error}; what was put is in the journal, and found after opening the store"
                " with a larger index_memory",
                limit=self.store.size.records,
            )
            raise self.broken.to_keep() from error
        except BaseException as error:
            # What the journal did not take is told by its error; what it took must also be in the index.
            if journal.writer.position != before:
                self.broken = self.interrupted(error)
            raise

    def interrupted(self, error: BaseException | str) -> PoisonedError:
        """The error of a shard that was stopped between two steps that belong together."""
        return PoisonedError(
            f"shard {self.number}: interrupted ({error!r}); close the store and open it again",
            what=f"shard {self.number}",
            cause=repr(error),
        )

    def delete(self, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Append a DELETE for each of the (n, size) keys that is here, as one batch; which were.

        JournalFullError as in :meth:`append`; LogStoreFullError where the index has no room to remember them.
        """
        with self.lock:
            self._writable()
            found, remembered = self.store.contains_many(kind, keys)
            if found.any():
                self._append(delete_stream(kind, keys[found]), remembered, deletes=True)
            return found

    def refuse(self, error: SiltstoneError) -> None:
        """Take nothing more from here on; every later write raises `error`."""
        with self.lock:
            self.broken = self.broken or error

    def check(self) -> None:
        """Raise why nothing more is taken, if that is so."""
        if self.broken is not None:
            # Raised many times, it must not gather the frames of all of them.
            raise self.broken.with_traceback(None)

    def _writable(self) -> SealedJournal:
        self.check()
        if self.journal is None:
            raise JournalFullError(f"shard {self.number} has no active journal", needed=0, room=0)
        return self.journal

    @property
    def last_room(self) -> bool:
        """Whether the active journal was the reserve: what is left of it is for deletions.

        Without them a volume that is full could never be cleaned.
        """
        journal, reserve = self.journal, self._reserve
        # Also in this life: an id comes back.
        return (
            journal is not None
            and reserve is not None
            and (journal.extent.id, journal.extent.generation) == (reserve.id, reserve.generation)
        )

    @property
    def room(self) -> int:
        """Bytes of entries that surely can be appended without more space: in the active journal, or the spare."""
        if self.broken is not None or self.journal is None or self.journal.poison is not None:
            return 0
        room = 0 if self.journal.given_up or self.last_room else self.journal.room
        spare = self.spare
        # All that is on its way may go to the next journal, but it does not pour into both.
        return room if spare is None or spare.poison is not None else max(room, spare.room)

    # ---- flushing, in three steps so that one flush of the medium serves many shards

    def begin_flush(self, *, note: bool = False) -> bool:
        """Write what a flush must cover; False where there is nothing new. The medium is the caller's to flush."""
        with self.lock:
            return self.journal is not None and self.journal.begin_flush(note=note)

    def end_flush(self) -> None:
        """The medium was flushed since :meth:`begin_flush`."""
        with self.lock:
            if self.journal is not None:
                self.journal.end_flush()

    def cancel_flush(self) -> None:
        """The flush was interrupted: nothing of it counts, and the next one may try again."""
        with self.lock:
            if self.journal is not None:
                self.journal.cancel_flush()

    def flush_failed(self, error: SiltstoneError) -> None:
        """A flush of the medium failed: poison the journal if anything of it may be lost."""
        with self.lock:
            for journal in (self.journal, self.spare):
                if journal is not None and journal.has_unflushed_writes:
                    journal.fail(error)

    def is_idle(self, now: float) -> bool:
        """Whether the idle note is due."""
        journal = self.journal
        return (
            journal is not None
            and journal.poison is None
            and journal.is_flushed
            and not journal.is_noted
            and now - self._last_change >= IDLE_SECONDS
        )

    # ---- rolling

    def wants_spare(self) -> bool:
        """Whether the next journal should be made ready: the active one is half full and there is no spare."""
        journal = self.journal
        return (
            journal is not None
            and journal.poison is None
            and self.spare is None
            and 2 * journal.writer.index >= journal.clusters
        )

    def make_spare(self, clusters: int = 0, *, reserve: bool = False) -> None:
        """Make the next journal ready, with at least `clusters` log clusters; takes no lock that puts wait for.

        As large as :func:`siltstone.shard.sizing.next_size` says; where space is short, smaller, down to the first
        size. DiskFullError, LogStoreFullError where it cannot be.

        :param reserve: it is for deletions, which may take their part of the reserve where there is no other space
        """
        with self._spare_lock:
            if self.spare is not None and self.spare.clusters >= clusters:
                return
            if not self.store.has_room_for_journal():
                raise LogStoreFullError(
                    f"shard {self.number} has as many journals as an index can number", limit=1024
                )
            best = 0
            if self.journal is not None:
                best = next_size(self.volume.superblock, self.store, self.journal)
            extent = self._take_next(best, clusters + SLOT_CLUSTERS, reserve=reserve)
            small = self.spare
            try:
                self.spare = self._prepared(extent)
            except BaseException:
                self._drop(extent)
                raise
            # Not before there is another: what is on its way counts on it.
            if small is not None:
                self._drop(small.extent)

    def _take_next(self, size: int, clusters: int, *, reserve: bool) -> Extent:
        """Take an extent of `size` bytes as an empty journal, durable; where space is short down to the first size.

        :param clusters: it has so many at least
        """
        least = max(space.first_size(self.volume.superblock.erase_block), clusters * CLUSTER_SIZE)
        size = max(size, least)
        while True:
            try:
                superblock = self.volume.publish(TakeNext(self.number, size), optional=True)
            except DiskFullError:
                if self.volume.poisoned:
                    raise
                if size == least:
                    room = space.room_for_deletions(self.volume.superblock, self.number)
                    if not reserve or room < clusters * CLUSTER_SIZE:
                        raise
                    superblock = self.volume.publish(TakeEmpty(self.number, room, kept=True))
                    taken = space.taken_by(superblock, self.number)
                    self._reserve = taken
                    return taken
                size = max(size // 2, least)
            else:
                return space.taken_by(superblock, self.number)

    def new_journal(self, extent: Extent) -> SealedJournal:
        """The writer of an empty journal, which can be read from here on; its slots are not written yet."""
        target = self.store.add(extent)
        return SealedJournal(target, self.volume.superblock.uuid, extent, self.volume.flush)

    def _prepared(self, extent: Extent) -> SealedJournal:
        spare = self.new_journal(extent)
        spare.prepare()
        self.volume.flush()
        return spare

    def _drop(self, extent: Extent) -> None:
        """Give back a spare that is too small for the batch that comes, or could not be made ready."""
        self.store.remove(extent)
        if self.volume.poisoned is None:
            self.volume.publish(Give(self.number, extent.id))

    def roll(self, stream: NDArray[np.uint8], *, reserve: bool = False) -> None:
        """Close the active journal and let the next one take the writes, if `stream` really does not fit.

        The caller holds the group's flush lock. Durable when it returns: all that was put into the old one.

        :param reserve: `stream` deletes, and may go to the shard's reserve where there is no other space
        """
        self.check()
        _entries, clusters = measure_stream(stream)
        if self.journal is not None and self.journal.poison is not None:
            raise PoisonedError(
                f"shard {self.number}: journal {self.journal.extent.id} is poisoned ({self.journal.poison})",
                what=f"shard {self.number}",
                cause=str(self.journal.poison),
            )
        if self._fits(stream, deletes=reserve):
            return
        try:
            self.make_spare(clusters, reserve=reserve)
        except DiskFullError as error:
            if self.journal is not None and self.journal.given_up:
                self._close_alone()
            raise self._disk_full(error) from error
        with self.lock:
            fresh, old = self.spare, self.journal
            if fresh is None or self._fits(stream, deletes=reserve):
                return
            end = None if old is None else self.flush_journal(old)
            self._publish_roll(old, end, fresh)

    def freeze(self) -> None:
        """Close the active journal, unless it is empty, so that it can be incarnated; the next one takes the writes.

        The caller holds the group's flush lock. DiskFullError where there is no space for the next one.
        """
        self.check()
        if self.journal is None or self.journal.position == (0, 0):
            return
        self.make_spare()
        with self.lock:
            fresh, old = self.spare, self.journal
            if fresh is not None and old is not None:
                self._publish_roll(old, self.flush_journal(old), fresh)

    def _fits(self, stream: NDArray[np.uint8], *, deletes: bool) -> bool:
        journal = self.journal
        if journal is None or journal.given_up or (self.last_room and not deletes):
            return False
        return journal.fits(stream)

    def _disk_full(self, error: DiskFullError) -> DiskFullError:
        return DiskFullError(
            f"shard {self.number}: no space for its next journal: {error}",
            **{**error.fields, "shard": self.number},
        )

    def flush_journal(self, journal: SealedJournal) -> End:
        """Flush a journal of the shard, under its lock and the group's for flushes; where it ends."""
        if journal.begin_flush():
            try:
                self.volume.flush()
            except SiltstoneError as error:
                journal.fail(error)
                raise
            except BaseException:
                journal.cancel_flush()
                raise
            journal.end_flush()
        return journal.end

    def _publish_roll(self, old: SealedJournal | None, end: End | None, fresh: SealedJournal | None) -> None:
        """Let `fresh` take the writes of `old`, first in the superblock, then here."""
        change = Roll(
            self.number,
            None if old is None else old.extent.id,
            end,
            None if fresh is None else fresh.extent.id,
        )
        published = False
        try:
            self.volume.publish(change)
            published = True
            if old is not None and end is not None:
                self.store.show_end(old.extent, end)
            self.journal = fresh
            if fresh is not None:
                self.spare = None
                self.store.show_tail(fresh, 0)
        except BaseException as error:
            if published or not isinstance(error, SiltstoneError):
                # Nothing may be put to the old journal once the superblock closes it, wherever this was stopped.
                self.broken = self.interrupted(error)
            elif old is not None and self.volume.poisoned is not None:
                # The medium may or may not say that the old journal is closed: nothing may be acknowledged in it.
                old.fail(self.volume.poisoned)
            raise

    def _close_alone(self) -> None:
        """Close a journal that was given up, with no successor: reads go on, writes wait for space."""
        with self.lock:
            old = self.journal
            if old is not None:
                self._publish_roll(old, self.flush_journal(old), None)
