"""The shards that one process owns: routes nothing, but flushes them together, rolls them, keeps house."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from siltstone.errors import ClosedError, DiskFullError, JournalFullError, LogStoreFullError, SiltstoneError
from siltstone.format.superblock import ACTIVE
from siltstone.shard.attempts import Attempts
from siltstone.shard.changes import JournalEnd
from siltstone.shard.checkpoint import checkpoint_group, is_due, snapshot_of, write_checkpoints
from siltstone.shard.figures import ShardFigures
from siltstone.shard.incarnation import Forgetting, Incarnation, choose_oldest
from siltstone.shard.merging import MANY, OnFull, choose_merge, closed_bytes, drop_oldest, merge_hash_stores
from siltstone.shard.packing import Packing, Run, worth_packing
from siltstone.shard.shard import FITS_BYTES, Shard, check_batch, delete_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)
#: part of its budget above which the oldest journals of an index are incarnated
INCARNATE_ABOVE = 0.75


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
        self.on_full = on_full or OnFull()
        self._wake = wake
        self.shards = {shard.number: shard for shard in shards}
        self._flush_lock = threading.Lock()
        self._pack_lock = threading.Lock()
        #: until when what failed rests, by what it is and the shard
        self._attempts = Attempts(volume)

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
            while True:
                slots = shard.store.slots_for(stream, records)
                try:
                    shard.append(stream, slots)
                    if shard.wants_spare():
                        self._wake()
                    break
                except JournalFullError:
                    self._roll(shard, stream)
                except LogStoreFullError:
                    if not self._make_index_room(shard, slots):
                        raise

    def try_append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> bool:
        """As :meth:`append` for one shard, where that waits for no flush and no other thread.

        False, with nothing done, where it would, or where there are several shards: some might take their batch and
        others not.
        """
        if len(streams) != 1:
            return False
        ((number, (stream, records)),) = streams.items()
        shard = self._shard(number)
        try:
            if not shard.try_append(stream, shard.store.slots_for(stream, records)):
                return False
        except LogStoreFullError:
            # Room can be made, which takes a while.
            return False
        if shard.wants_spare():
            self._wake()
        return True

    def delete(self, number: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Delete those of the (n, size) keys that one shard has, as one batch; which it had."""
        shard = self._shard(number)
        stream = delete_stream(kind, keys)
        check_batch(stream)
        while True:
            try:
                return shard.delete(kind, keys)
            except JournalFullError:
                self._roll(shard, stream)
            except LogStoreFullError:
                if not self._make_index_room(shard, len(keys)):
                    raise

    def _shard(self, number: int) -> Shard:
        self._check_open()
        return self.shards[number]

    def _check_open(self) -> None:
        self.volume.check_process()
        if not self.shards:
            raise ClosedError(f"{self.volume.backend.url}: the store is closed", what="store")

    def _roll(self, shard: Shard, stream: NDArray[np.uint8]) -> None:
        while True:
            try:
                with self._flush_lock:
                    shard.roll(stream)
            except DiskFullError:
                if not self._make_space():
                    raise
            else:
                return

    def _make_index_room(self, shard: Shard, records: int) -> bool:
        """Let the index of a shard take `records` more; False where it is too small for them even when empty.

        Housekeeping does this in time; who puts faster waits here.
        """
        try:
            with self._pack_lock:
                if shard.store.room >= records:
                    return True
                if shard.broken is not None or records > shard.store.size.records:
                    return False
                if self._incarnate(shard):
                    return True
            with self._flush_lock:
                shard.freeze()
            with self._pack_lock:
                return self._incarnate(shard) or shard.store.room >= records
        except DiskFullError:
            if not self._make_space():
                raise
            return True

    def _make_space(self) -> bool:
        """Free what is dead in any shard, or what is oldest, where that may go; False where nothing can be freed."""
        shards = list(self.shards.values())
        for shard in shards:
            try:
                if self.pack(shard):
                    return True
            except DiskFullError:
                continue
        # Of the shard that holds most: then the windows of all stay about as long.
        return self.on_full.drops_oldest and any(
            self.drop_oldest(shard) for shard in sorted(shards, key=closed_bytes, reverse=True)
        )

    # ---- flushing

    def flush(self, *, only: Sequence[Shard] | None = None, note: bool = False) -> None:
        """Return once all that was appended before this call is durable.

        Callers that wait here together are served by one flush of the medium. A shard that cannot flush
        does not keep the others from it; its error is raised when they are done.
        """
        errors: list[SiltstoneError] = []
        with self._flush_lock:
            self._check_open()
            try:
                self._flush(self.shards.values() if only is None else only, note, errors)
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

    def _flush(self, shards: Iterable[Shard], note: bool, errors: list[SiltstoneError]) -> None:
        begun = []
        for shard in shards:
            try:
                if shard.begin_flush(note=note):
                    begun.append(shard)
            except SiltstoneError as error:
                errors.append(error)
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
        idle = [shard for shard in shards if shard.is_idle(now)]
        if idle:
            self._attempts.attempt("note", -1, now, lambda: self.flush(only=idle, note=True))
        for shard in shards:
            if shard.wants_spare():
                self._attempts.attempt("spare", shard.number, now, shard.make_spare)
        for shard in shards:
            self._attempts.attempt("pack", shard.number, now, partial(self.pack, shard))
            if shard.store.slots > shard.store.size.records * INCARNATE_ABOVE:
                self._attempts.attempt("incarnate", shard.number, now, partial(self._relieve, shard))
            self._attempts.attempt("merge", shard.number, now, partial(self._limit, shard))
            self._attempts.attempt("load", shard.number, now, shard.store.load_rest)
            if is_due(shard):
                self._attempts.attempt("checkpoint", shard.number, now, partial(self.checkpoint, [shard]))

    def pack(self, shard: Shard) -> bool:
        """Pack journals of a shard that are more than half dead; False where there are none.

        One at a time. Errors as :meth:`siltstone.shard.packing.Packing.carry_out` has them.
        """
        with self._pack_lock:
            run = worth_packing(shard)
            if run is None:
                return False
            Packing(shard, run, lambda: self.flush(only=[shard])).carry_out()
            _log.debug("shard %s: packed %s", shard.number, [source.id for source in run.sources])
            return True

    def _relieve(self, shard: Shard) -> None:
        """Incarnate something, the active journal where there is no other: else whoever fills the index waits."""
        if not self.incarnate(shard):
            with self._flush_lock:
                shard.freeze()
            self.incarnate(shard)

    def incarnate(self, shard: Shard) -> bool:
        """Turn the oldest closed journals of a shard into a hash store; False where there are none."""
        with self._pack_lock:
            return self._incarnate(shard)

    def _incarnate(self, shard: Shard) -> bool:
        oldest = choose_oldest(shard)
        if oldest is None:
            return False
        # Whoever fills the index faster than housekeeping keeps hash stores few does that too.
        if self.on_full.drops_oldest:
            while len(shard.store.hash_stores) >= self.on_full.hash_stores_max:
                drop_oldest(shard)
        else:
            while len(shard.store.hash_stores) >= MANY and self._merge(shard, everything=False):
                pass
        Incarnation(shard, oldest, lambda: self.flush(only=[shard])).carry_out()
        _log.debug("shard %s: incarnated %s", shard.number, [source.id for source in oldest.run.sources])
        return True

    def merge(self, shard: Shard, *, everything: bool = False) -> bool:
        """Merge hash stores of a shard, those of one size or everything; False where there is nothing to merge."""
        with self._pack_lock:
            return self._merge(shard, everything=everything)

    def _merge(self, shard: Shard, *, everything: bool) -> bool:
        stores = shard.store.hash_stores
        sources = stores if everything and len(stores) > 1 else choose_merge(stores)
        if not sources:
            return False
        merge_hash_stores(shard, sources)
        _log.debug("shard %s: merged %s", shard.number, [source.id for source in sources])
        return True

    def drop_oldest(self, shard: Shard) -> bool:
        """Give up the oldest hash store of a shard, or its oldest closed journals; False where it has neither."""
        with self._pack_lock:
            if drop_oldest(shard):
                return True
            found = choose_oldest(shard)
            if found is None:
                return False
            oldest = Run(found.run.sources[:1], oldest=True)
            Forgetting(shard, oldest, lambda: self.flush(only=[shard])).carry_out()
            return True

    def _limit(self, shard: Shard) -> None:
        """Keep hash stores few: merge them, or give up the oldest."""
        if not self.on_full.drops_oldest:
            self.merge(shard)
            return
        while len(shard.store.hash_stores) > self.on_full.hash_stores_max:
            self.drop_oldest(shard)

    def checkpoint(self, shards: Sequence[Shard]) -> None:
        """Write checkpoints of some shards now, where they differ from the last; durable. None where space is short.

        Whoever puts into one of them waits while what it holds is flushed and its index copied.
        """
        with self._pack_lock, self._flush_lock:
            self._check_open()
            checkpoint_group(self.volume, shards)

    def tidy(self, *, incarnate: bool) -> bool:
        """Pack some journals now, if any are more than half dead; whether there may be more to do.

        :param incarnate: incarnate everything and merge it, however much room the index has
        """
        shards = list(self.shards.values())
        if not incarnate:
            return any(self.pack(shard) for shard in shards)
        for shard in shards:
            with self._flush_lock:
                shard.freeze()
        if any(self.incarnate(shard) for shard in shards):
            return True
        if self.on_full.drops_oldest:
            for shard in shards:
                self._limit(shard)
            return False
        return any(self.merge(shard, everything=True) for shard in shards)

    def end(self) -> tuple[JournalEnd, ...]:
        """Take nothing more, flush everything; where each active journal ends, for the mark of a clean close.

        A shard that cannot flush, is poisoned, or was cut off in a roll forbids the mark: its error is raised,
        and the next opening recovers.
        """
        # First: what came after the flush would be lost without a word, or lie behind the ends that are published.
        closed = ClosedError(f"{self.volume.backend.url}: the store is closed", what="store")
        for shard in self.shards.values():
            shard.refuse(closed)
        self.flush()
        ends = []
        with self._pack_lock, self._flush_lock:
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
                write_checkpoints(self.volume, list(self.shards.values()), snapshot_of)
            except SiltstoneError as error:
                _log.warning("no checkpoint, so that the next opening replays: %s", error)
        return tuple(ends)

    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, in the order of their numbers."""
        return tuple(
            ShardFigures(
                number,
                shard.store.records,
                shard.store.size.records,
                shard.store.memory,
                None if shard.journal is None else shard.journal.extent.id,
                None if shard.journal is None else shard.journal.position,
            )
            for number, shard in sorted(self.shards.items())
        )

    def release(self) -> None:
        """Let go of the shards; whoever still calls gets ClosedError."""
        self.shards = {}
