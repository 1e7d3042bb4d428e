"""The shards that one process owns: routes nothing, but flushes them together, rolls them, keeps house."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import ClosedError, DiskFullError, JournalFullError, LogStoreFullError, SiltstoneError
from siltstone.format.superblock import ACTIVE
from siltstone.shard.attempts import Attempts
from siltstone.shard.batches import FITS_BYTES, check_batch, delete_stream
from siltstone.shard.changes import JournalEnd
from siltstone.shard.checkpoint import snapshot_of, write_checkpoints
from siltstone.shard.figures import ShardFigures
from siltstone.shard.group_commit import GroupCommit
from siltstone.shard.merging import OnFull
from siltstone.shard.rolling import complete, complete_onward, roll
from siltstone.shard.spares import make_spare, make_spares, soon_want_spare, wants_spare
from siltstone.shard.tail_append import append_to_tail
from siltstone.shard.upkeep import CLEAN_SECONDS, Upkeep, is_nearly_full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)


class ShardGroup:
    """Some shards of one volume, written by this process.

    :param volume: theirs
    :param shards: opened
    :param wake: called where a tick should come soon
    :param on_full: what becomes of old records when there is no room for new ones

    Threads may share it.
    """

    def __init__(
        self,
        volume: ShardVolume,
        shards: Sequence[Shard],
        wake: Callable[[], None] = lambda: None,
        on_full: OnFull | None = None,
    ) -> None:
        self.volume = volume
        self._process = os.getpid()
        self._wake = wake
        self.shards = {shard.number: shard for shard in shards}
        self._flush_lock = threading.Lock()
        self._commits = GroupCommit(self._flush_all)
        self._attempts = Attempts(volume)
        self.upkeep = Upkeep(
            self.shards, volume, self.flush, self._flush_lock, self._attempts, on_full or OnFull(), wake
        )

    # ---- writing

    def append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> None:
        """Append to each shard its batch: packed entries, and how many of them may bring a new key.

        Every batch is checked before any is written. All or none per shard; an error in one shard leaves
        those before it written. Not durable yet.
        """
        # The journal checks a batch before it writes anything of it; it is the next ones that must not be found bad.
        for stream, _records in streams.values():
            if len(streams) > 1 or len(stream) > FITS_BYTES:
                check_batch(stream)
        for number, (stream, records) in streams.items():
            shard = self._shard(number)
            if append_to_tail(shard, stream, records):
                continue
            while True:
                slots = shard.store.slots_for(stream, records)
                try:
                    shard.append(stream, slots)
                    if wants_spare(shard):
                        self._wake()
                    break
                except JournalFullError:
                    self._roll(shard, stream)
                except LogStoreFullError:
                    if not self.upkeep.make_index_room(shard, slots):
                        raise

    def try_append(self, number: int, stream: NDArray[np.uint8], records: int) -> bool:
        """As :meth:`append` for one shard, where that waits for no flush and no other thread; False, with nothing done,
        where it would, and for a batch that might fit no journal."""
        shard = self._shard(number)
        # What closes no cluster makes no spare wanted either.
        if append_to_tail(shard, stream, records):
            return True
        if len(stream) > FITS_BYTES:
            return False
        try:
            if not shard.try_append(stream, shard.store.slots_for(stream, records)):
                return False
        except LogStoreFullError:
            # Room can be made, which takes a while.
            return False
        if wants_spare(shard):
            self._wake()
        return True

    def delete(self, number: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Delete those of the (n, size) keys that one shard has; which it had.

        As one batch, where there is space for it; in smaller ones on a full volume.
        """
        return self._delete_in_parts(
            self._shard(number), kind, keys, self.volume.ports.clock() + CLEAN_SECONDS
        )

    def _delete_in_parts(
        self, shard: Shard, kind: int, keys: NDArray[np.uint8], end: float
    ) -> NDArray[np.bool_]:
        try:
            return self._delete(shard, kind, keys, end)
        except DiskFullError:
            half = len(keys) // 2
            if half == 0 or self.volume.ports.clock() > end:
                raise
            parts = (keys[:half], keys[half:])
            return np.concatenate([self._delete_in_parts(shard, kind, part, end) for part in parts])

    def _delete(self, shard: Shard, kind: int, keys: NDArray[np.uint8], end: float) -> NDArray[np.bool_]:
        stream = delete_stream(kind, keys)
        check_batch(stream)
        while True:
            try:
                return shard.delete(kind, keys)
            except JournalFullError:
                self._roll(shard, stream, deletes_until=end)
            except LogStoreFullError:
                if not self.upkeep.make_index_room(shard, len(keys), deletes=True):
                    raise

    def _shard(self, number: int) -> Shard:
        self._check_open()
        return self.shards[number]

    def _check_open(self) -> None:
        # Looked at here before it is called: this comes with every put.
        if os.getpid() != self._process:
            self.volume.check_process()
        if not self.shards:
            raise self._closed()

    def _closed(self) -> ClosedError:
        return ClosedError(f"{self.volume.backend.url}: the store is closed", what="store")

    def _roll(self, shard: Shard, stream: NDArray[np.uint8], *, deletes_until: float | None = None) -> None:
        reserve = False
        while True:
            try:
                with self._flush_lock:
                    roll(shard, stream, reserve=reserve, others=list(self.shards.values()))
            except DiskFullError:
                deletes = deletes_until is not None
                if self.upkeep.make_space(deletes=deletes, end=deletes_until):
                    continue
                if not deletes or reserve:
                    raise
                reserve = True
            else:
                # Housekeeping completes the roll, when it looks next or when the journal behind that one is wanted,
                # which takes one superblock write for both: whoever puts need not wait for it.
                if is_nearly_full(shard):
                    self._wake()
                return

    def _complete_rolls(self) -> None:
        with self._flush_lock:
            complete(list(self.shards.values()))

    # ---- flushing

    def flush(self, *, only: Sequence[Shard] | None = None) -> None:
        """Return once all that was appended before this call is durable.

        Threads that wait here together, for all shards, are served by one flush of the medium. A shard that cannot
        flush does not keep the others from it; its error is raised when they are done.
        """
        # Before any lock: in a child of a process that was forked another thread may hold it for ever.
        self._check_open()
        if only is None:
            self._commits.ask()
        else:
            self._flush_some(only)

    def _flush_all(self) -> None:
        self._flush_some(list(self.shards.values()))

    def _flush_some(self, shards: Sequence[Shard], *, note: bool = False) -> None:
        errors: list[SiltstoneError] = []
        with self._flush_lock:
            if not self.shards:
                raise self._closed()
            try:
                self._flush(shards, note, errors)
            except SiltstoneError as error:
                # The kernel may have dropped any write that no flush covered, whichever shard made it.
                for shard in self.shards.values():
                    shard.flush_failed(error)
                raise
            except BaseException:
                for shard in self.shards.values():
                    shard.cancel_flush()
                raise
        if errors:
            # Out of the list, which this frame holds: the error's traceback holds this frame, for ever otherwise.
            raise errors.pop(0)

    def _flush(self, shards: Sequence[Shard], note: bool, errors: list[SiltstoneError]) -> None:
        begun: list[Shard] = []
        pieces: list[tuple[int, Buffer]] = []
        try:
            complete(shards)
        except SiltstoneError as error:
            errors.append(error)
        for shard in shards:
            if not note and shard.is_flushed:
                continue
            try:
                if shard.begin_flush(pieces, note=note):
                    begun.append(shard)
            except SiltstoneError as error:
                errors.append(error)
        # Together: each call that waits for the medium lets other threads in, and waits for them to let go.
        refused = self.volume.backend.write_each(pieces) if pieces else {}
        for place, failure in refused.items():
            begun[place].write_failed(failure)
            errors.append(failure)
        if refused:
            begun = [shard for place, shard in enumerate(begun) if place not in refused]
        if begun:
            self.volume.flush(shared=True)
        for shard in begun:
            try:
                shard.end_flush()
            except SiltstoneError as error:
                errors.append(error)

    # ---- housekeeping

    def tick(self) -> None:
        """Do what is due: idle notes, spares, packing, incarnation, merges, checkpoints. Called from time to time by
        whoever keeps the clock.

        What fails rests for a while; what else is due, and other shards, do not wait for that.
        """
        now = self.volume.ports.clock()
        shards = list(self.shards.values())
        if any(shard.turned for shard in shards):
            self._attempts.attempt("roll", -1, now, partial(complete_onward, shards, self._flush_lock))
        idle = [shard for shard in shards if shard.is_idle(now)]
        if idle:
            self._attempts.attempt("note", -1, now, lambda: self._flush_some(idle, note=True))
        soon = soon_want_spare(shards)
        if len(soon) > 1 and any(map(wants_spare, soon)):
            self._attempts.attempt("spares", -1, now, partial(make_spares, soon))
        # Also where there was no space for all of them: there may be some for one.
        for shard in filter(wants_spare, shards):
            self._attempts.attempt("spare", shard.number, now, partial(make_spare, shard))
        self.upkeep.tick(now)

    def end(self) -> tuple[JournalEnd, ...]:
        """Take nothing more, flush everything; where each active journal ends, for the mark of a clean close.

        A shard that cannot flush, is poisoned, or was cut off in a roll forbids the mark: its error is raised,
        and the next opening recovers.
        """
        # First: what came after the flush would be lost without a word, or lie behind the ends that are published.
        closed = self._closed()
        # The index of a shard that was stopped between two steps may lack what is in its journal, or have more.
        whole = [shard for shard in self.shards.values() if shard.broken is None]
        for shard in self.shards.values():
            shard.refuse(closed)
        self.flush()
        ends = []
        with self.upkeep.lock, self._flush_lock:
            for shard in self.shards.values():
                journal = shard.journal
                if journal is None:
                    continue
                if self.volume.extent(journal.extent.id).state != ACTIVE:
                    # Cut off in a roll: the superblock is ahead of what is here, and recovery settles it.
                    raise shard.broken or closed
                # Behind the end of one that a batch was given up in lies what was written of that batch.
                ends.append(JournalEnd(shard.number, journal.extent.id, journal.end, journal.given_up))
            try:
                # Nothing can change any more, and everything is durable.
                write_checkpoints(self.volume, whole, snapshot_of)
            except SiltstoneError as error:
                _log.warning("no checkpoint, so that the next opening replays: %s", error)
        return tuple(ends)

    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, in the order of their numbers; they go with the superblock, as far as may be."""
        with suppress(SiltstoneError):
            self._complete_rolls()
        return tuple(
            ShardFigures(
                number,
                shard.store.records,
                shard.store.size.records,
                shard.store.memory,
                None if shard.journal is None else shard.journal.extent.id,
                None if shard.journal is None else shard.journal.position,
                shard.store.dead,
            )
            for number, shard in sorted(self.shards.items())
        )

    def release(self) -> None:
        """Let go of the shards; whoever still calls gets ClosedError."""
        self.shards = {}
        self.upkeep.release()
