"""One shard: appends to its active journal, keeps its index in step, flushes.

Lock order: the group's pack lock, its flush lock, the shard's spare lock or lock, the volume's. Who needs those of
several shards takes them in the order of their numbers. Readers take none.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from siltstone.errors import JournalFullError, LogStoreFullError, PoisonedError, SiltstoneError
from siltstone.journal.sealed import SealedJournal
from siltstone.locks import Attempt
from siltstone.log_store.mirror import Mirror
from siltstone.shard.batches import delete_stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

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
        #: whether the superblock does not know yet that this one takes the writes, and the one before, until it does;
        #: see rolling.py
        self.turned = False
        self.closing: SealedJournal | None = None
        self.lock = threading.Lock()
        #: the next journal, once it is ready, and what whoever makes it holds; see spares.py
        self.spare: SealedJournal | None = None
        self.spare_lock = threading.Lock()
        #: when something was appended last
        self.last_change = volume.ports.clock()
        #: the extent that was the shard's reserve and became a journal for deletions
        self.reserve: Extent | None = None
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
        with Attempt(self.lock) as is_free:
            if is_free:
                try:
                    self._append(stream, records, flushes=False)
                except JournalFullError:
                    return False
            return is_free

    def _append(
        self, stream: NDArray[np.uint8], records: int, *, deletes: bool = False, flushes: bool = True
    ) -> None:
        journal = self._writable()
        if self.last_room and not deletes:
            raise JournalFullError(
                f"shard {self.number}: what is left is for deletions", needed=len(stream), room=0
            )
        self.store.check_room(records)
        before = journal.writer.position
        try:
            first = journal.append_to_tail(stream)
            positions = journal.append_stream(stream, flushes=flushes) if first < 0 else first
            self.last_change = self.volume.ports.clock()
            self.store.show_tail(journal, before[1])
            self.store.apply(journal.extent, stream, positions)
        except BaseException as error:
            self.append_failed(journal, before, error)
            raise

    def append_failed(self, journal: SealedJournal, before: tuple[int, int], error: BaseException) -> None:
        """Take nothing more where the journal took what the index may not have; LogStoreFullError where that is why.

        :param before: the journal's position before it was appended to
        """
        # What the journal did not take is told by its error; what it took must also be in the index.
        if journal.writer.position == before:
            return
        if isinstance(error, MemoryError):
            self.broken = LogStoreFullError(
                f"shard {self.number}: {error}; what was put is in the journal, and found after opening the store"
                " with a larger index_memory",
                limit=self.store.size.records,
            )
            raise self.broken.to_keep() from error
        self.broken = self.interrupted(error)

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

    def fits(self, stream: NDArray[np.uint8], *, deletes: bool) -> bool:
        """Whether the active journal takes a batch; EntryError where it is none.

        :param deletes: it deletes, so that what is left for deletions counts
        """
        journal = self.journal
        if journal is None or journal.given_up or (self.last_room and not deletes):
            return False
        return journal.fits(stream)

    def new_journal(self, extent: Extent) -> SealedJournal:
        """The writer of an empty journal, which can be read from here on; its slots are not written yet."""
        target = self.store.add(extent)
        return SealedJournal(target, self.volume.superblock.uuid, extent, self.volume.flush)

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
        journal, reserve = self.journal, self.reserve
        # Also in this life: an id comes back.
        return (
            journal is not None
            and reserve is not None
            and (journal.extent.id, journal.extent.generation) == (reserve.id, reserve.generation)
        )

    @property
    def room(self) -> int:
        """Bytes of entries that surely can be appended without more space: in the active journal, or the spare."""
        journal = self.journal
        if self.broken is not None or journal is None or journal.poison is not None:
            return 0
        room = 0 if journal.given_up or self.last_room else journal.room
        spare = self.spare
        # All that is on its way may go to the next journal, but it does not pour into both.
        return room if spare is None or spare.poison is not None else max(room, spare.room)

    # ---- flushing, in three steps so that one flush of the medium serves many shards

    @property
    def is_flushed(self) -> bool:
        """Whether a flush finds nothing here: no entry that is not durable, and no error to tell.

        Asked without the lock: what was appended before is seen, what others append meanwhile may not be.
        """
        journal = self.journal
        return not self.turned and (journal is None or (journal.poison is None and journal.is_flushed))

    def begin_flush(self, pieces: list[tuple[int, Buffer]], *, note: bool = False) -> bool:
        """Add to `pieces` what is to be written, (offset, data), before a flush; False where nothing is new.

        To write it, and to flush the medium, is the caller's, who calls :meth:`write_failed` where that failed. Behind
        a roll that the superblock does not know nothing is; PoisonedError where it never will.
        """
        with self.lock:
            if self.turned:
                self.check_roll()
                return False
            journal = self.journal
            if journal is None or not journal.begin_flush(note=note, pieces=pieces):
                return False
            if isinstance(journal.backend, Mirror):
                # Before the medium has it: readers look there only once it was flushed.
                journal.backend.fill(*pieces[-1])
            return True

    def write_failed(self, error: SiltstoneError) -> None:
        """What :meth:`begin_flush` gave to be written could not be: there is nothing to end."""
        with self.lock:
            if self.journal is not None:
                self.journal.write_failed(error)

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
        """A flush of the medium failed: poison the journals if anything of them may be lost.

        Behind a roll that is not complete that is for both: what the next one has counts only behind the one before.
        """
        with self.lock:
            at_risk = [each for each in self._journals if each.has_unflushed_writes]
            if self.turned and any(each is not self.spare for each in at_risk):
                at_risk = self._journals
            for journal in at_risk:
                journal.fail(error)

    @property
    def _journals(self) -> list[SealedJournal]:
        return [each for each in (self.closing, self.journal, self.spare) if each is not None]

    def roll_failed(self, error: SiltstoneError) -> None:
        """What was put before the last roll may be lost: nothing is acknowledged in either journal any more."""
        with self.lock:
            for journal in (self.closing, self.journal):
                if journal is not None:
                    journal.fail(error)

    def check_roll(self) -> None:
        """PoisonedError where the superblock will never know of the last roll."""
        if self.turned:
            for journal in (self.closing, self.journal):
                if journal is not None:
                    journal.check()

    @property
    def roll_has_failed(self) -> bool:
        """Whether the superblock will never know of the last roll."""
        return any(
            journal is not None and journal.poison is not None for journal in (self.closing, self.journal)
        )

    def is_idle(self, now: float) -> bool:
        """Whether the idle note is due."""
        journal = self.journal
        return (
            journal is not None
            and journal.poison is None
            and journal.is_flushed
            and not journal.is_noted
            and now - self.last_change >= IDLE_SECONDS
        )
