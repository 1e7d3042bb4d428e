"""What keeps the space and the memory of some shards within bounds: packing, incarnation, merges, checkpoints."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, LogStoreFullError
from siltstone.format.superblock import CLOSED
from siltstone.log_store.older_views import by_store, first_hash
from siltstone.shard.checkpoint import checkpoint_group, due_checkpoints
from siltstone.shard.choosing import candidates_of, choose
from siltstone.shard.incarnation import SOURCES_BYTES, Forgetting, Incarnation, choose_oldest
from siltstone.shard.making_space import MakingSpace
from siltstone.shard.merging import MANY, OnFull, choose_merge, drop_oldest, merge_slice
from siltstone.shard.packing import Packing
from siltstone.shard.rolling import complete, freeze
from siltstone.shard.space import closed_bytes
from siltstone.volume.allocator import end_of_extents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from siltstone.shard.attempts import Attempts
    from siltstone.shard.incarnation import Oldest
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume

    class Flush(Protocol):
        """Returns once all that was appended to some shards is durable."""

        def __call__(self, *, only: Sequence[Shard]) -> None: ...


_log = logging.getLogger(__name__)
#: part of its budget above which the oldest journals of an index are incarnated
INCARNATE_ABOVE = 0.75
#: part of what the largest shard holds that another is to hold if what is oldest is to go there
_MUCH = 0.75
#: so long a call that needs space waits for cleaning that has given none yet
CLEAN_SECONDS = 5.0


def is_nearly_full(shard: Shard) -> bool:
    """Whether the index of a shard has so little room that something is to be incarnated."""
    return shard.store.slots > shard.store.size.records * INCARNATE_ABOVE


class Upkeep:
    """The upkeep of a group of shards. Threads may share it; it does one thing at a time, under `lock`.

    :param shards: the group's, by number
    :param volume: theirs
    :param flush: the group's
    :param flush_lock: who holds it flushes or rolls; taken after `lock`
    :param attempts: what is tried unattended
    :param on_full: what becomes of old records when there is no room for new ones
    :param wake: called where a tick should come soon
    """

    def __init__(
        self,
        shards: Mapping[int, Shard],
        volume: ShardVolume,
        flush: Flush,
        flush_lock: threading.Lock,
        attempts: Attempts,
        on_full: OnFull,
        wake: Callable[[], None],
    ) -> None:
        self.lock = threading.Lock()
        self._shards: Mapping[int, Shard] = shards
        self._volume = volume
        self._flush = flush
        self._flush_lock = flush_lock
        self._attempts = attempts
        self._on_full = on_full
        self._wake = wake
        #: by shard the place in the replay up to which somebody waits for everything to be incarnated
        self._until: dict[int, int] = {}
        #: by shard of how many bytes the volume was when it had no space for a hash store of several journals
        self._full_with: dict[int, int] = {}
        self._making_space = MakingSpace(
            volume,
            lambda shard: flush(only=[shard]),
            flush_lock,
            partial(self._merge, everything=True),
        )

    def tick(self, now: float) -> None:
        """Do what is due; what fails rests for a while, and what else is due does not wait for that."""
        attempt = self._attempts.attempt
        for shard in list(self._shards.values()):
            attempt("pack", shard.number, now, partial(self._pack_on, shard))
            if is_nearly_full(shard):
                attempt("incarnate", shard.number, now, partial(self._relieve, shard))
            attempt("merge", shard.number, now, partial(self._limit, shard))
            attempt("load", shard.number, now, shard.store.load_rest)
        for due in due_checkpoints(list(self._shards.values())):
            attempt("checkpoint", due[0].number, now, partial(self.checkpoint, due))

    # ---- for those who put

    def make_index_room(self, shard: Shard, records: int, *, deletes: bool = False) -> bool:
        """Let the index of a shard take `records` more; False where it is too small for them even when empty.

        Housekeeping does this in time; who puts faster waits here.

        :param deletes: it is for deletions, for which the reserve may be used where there is no other space
        """
        try:
            with self.lock:
                # First: a shard that takes nothing any more says that it is full, whatever room there is.
                if shard.broken is not None or records > shard.store.size.records:
                    return False
                if shard.store.room >= records:
                    return True
                if self._incarnate(shard):
                    return True
            with self._flush_lock:
                freeze(shard)
            with self.lock:
                return self._incarnate(shard) or shard.store.room >= records
        except DiskFullError:
            # Without room for what is deleted there is nothing to sort out any more.
            if self.make_space(deletes=True):
                return True
            if not deletes:
                raise
            with self.lock:
                if not (self._merge(shard, everything=True) or self._incarnate(shard, kept=True)):
                    raise
            return True

    def make_space(self, *, deletes: bool = False, here: bool = False, end: float | None = None) -> bool:
        """Free what is dead in any shard, or what is oldest, where that may go; False where nothing can be freed.

        :param deletes: it is for deletions, which may make more: it is done however much must be copied for it
        :param here: what is oldest is to go here; else only where no shard of another process has much more
        :param end: when cleaning gives up; None: :data:`CLEAN_SECONDS` from now
        """
        shards = list(self._shards.values())
        with self._flush_lock:
            # What was rolled from may be dead by now.
            complete(shards)
        ways = [self.pack]
        if not self._on_full.drops_oldest:
            # In a window what is oldest goes instead, and goes whole: nothing newer may be copied among it.
            now = self._volume.ports.clock()
            until = now + CLEAN_SECONDS if end is None else end
            # The one must not leave the other no time.
            ways.append(partial(self.clean, sparing=not deletes, end=now + (until - now) / 2))
            ways.append(partial(self.condense, sparing=not deletes, end=until))
            if deletes:
                ways.append(partial(self.clean_all, end=until))
        for free in ways:
            for shard in shards:
                try:
                    if free(shard):
                        return True
                except (DiskFullError, LogStoreFullError):
                    continue
        if not self._on_full.drops_oldest:
            return False
        # Of the shard that holds most: then the windows of all stay about as long.
        superblock = self._volume.superblock
        held = [closed_bytes(superblock, number) for number in range(superblock.shards)]
        least = 0 if here else _MUCH * max(held)
        return any(
            held[shard.number] >= least and self.drop_oldest(shard)
            for shard in sorted(shards, key=lambda shard: held[shard.number], reverse=True)
        )

    # ---- one thing after the other

    def pack(self, shard: Shard) -> bool:
        """Pack journals of a shard that are more than half dead; False where there are none.

        One at a time. Errors as :meth:`siltstone.shard.packing.Packing.carry_out` has them.
        """
        with self.lock:
            run = choose(candidates_of(shard))
            if run is None:
                return False
            Packing(shard, run, lambda: self._flush(only=[shard])).carry_out()
            _log.debug("shard %s: packed %s", shard.number, [source.id for source in run.sources])
            return True

    def _pack_on(self, shard: Shard) -> None:
        """Pack, and be back soon for what else there is, however seldom others call: they may overwrite fast."""
        if self.pack(shard):
            self._wake()

    def clean(self, shard: Shard, *, sparing: bool, end: float) -> bool:
        """As :meth:`siltstone.shard.making_space.MakingSpace.clean`."""
        with self.lock:
            return self._making_space.clean(shard, sparing=sparing, end=end)

    def clean_all(self, shard: Shard, *, end: float) -> bool:
        """As :meth:`siltstone.shard.making_space.MakingSpace.clean_all`."""
        with self.lock:
            return self._making_space.clean_all(shard, end=end)

    def condense(self, shard: Shard, *, sparing: bool, end: float) -> bool:
        """As :meth:`siltstone.shard.making_space.MakingSpace.condense`."""
        with self.lock:
            return self._making_space.condense(shard, sparing=sparing, end=end)

    def _relieve(self, shard: Shard) -> None:
        """Incarnate something, the active journal where there is no other: else whoever fills the index waits."""
        done = self.incarnate(shard)
        if not done:
            with self._flush_lock:
                freeze(shard)
            done = self.incarnate(shard)
        if done and is_nearly_full(shard):
            self._wake()

    def incarnate(self, shard: Shard, *, until: int | None = None) -> bool:
        """Turn the oldest closed journals of a shard into a hash store; False where there are none.

        :param until: none that comes after this place in the replay
        """
        with self.lock:
            return self._incarnate(shard, until=until)

    def _incarnate(self, shard: Shard, *, until: int | None = None, kept: bool = False) -> bool:
        # Where a window fills the volume there is space for one, and to find that out takes writing most of them.
        size = end_of_extents(self._volume.superblock)
        most = 0 if self._full_with.get(shard.number) == size else SOURCES_BYTES
        oldest = choose_oldest(shard, until=until, bytes_max=most)
        if oldest is None:
            return False
        # Whoever fills the index faster than housekeeping keeps hash stores few does that too.
        if self._on_full.drops_oldest:
            # No merge needs the reserve, and what it lacks the oldest can always give.
            kept = True
            while len(by_store(shard.store.hash_stores)) >= self._on_full.hash_stores_max:
                drop_oldest(shard)
        else:
            while len(by_store(shard.store.hash_stores)) >= MANY and self._merge(shard, everything=False):
                pass
        try:
            self._carry_out(shard, oldest, kept=kept)
        except DiskFullError:
            one = choose_oldest(shard, until=until, bytes_max=0)
            if one is None or one.run.sources == oldest.run.sources:
                raise
            if self._on_full.drops_oldest:
                self._full_with[shard.number] = size
            self._carry_out(shard, one, kept=kept)
        return True

    def _carry_out(self, shard: Shard, oldest: Oldest, *, kept: bool) -> None:
        Incarnation(
            shard,
            oldest,
            lambda: self._flush(only=[shard]),
            kept=kept,
        ).carry_out()
        _log.debug("shard %s: incarnated %s", shard.number, [source.id for source in oldest.run.sources])

    def merge(self, shard: Shard, *, everything: bool = False, until: int | None = None) -> bool:
        """Merge one slice of hash stores of a shard, those of one size or any; False where there is nothing to merge.

        Others get their turn between two slices.

        :param until: none that comes after this place in the replay, but for those of a merge that was begun
        """
        with self.lock:
            return self._merge(shard, everything=everything, until=until)

    def _merge(self, shard: Shard, *, everything: bool, until: int | None = None) -> bool:
        found = by_store(shard.store.hash_stores)
        if until is not None and not any(first_hash(parts[0]) for parts in found):
            found = [parts for parts in found if parts[0].order <= until]
        stores = choose_merge(found, everything=everything)
        if not stores:
            return False
        merge_slice(shard, stores)
        _log.debug("shard %s: merged a slice of %s", shard.number, [parts[0].order for parts in stores])
        return True

    def drop_oldest(self, shard: Shard) -> bool:
        """Give up the oldest hash store of a shard, or its oldest closed journals; False where it has neither."""
        with self.lock:
            if drop_oldest(shard):
                return True
            oldest = choose_oldest(shard, bytes_max=0)
            if oldest is None:
                return False
            Forgetting(shard, oldest, lambda: self._flush(only=[shard])).carry_out()
            return True

    def _limit(self, shard: Shard) -> None:
        """Keep hash stores few: merge them, or give up the oldest."""
        if not self._on_full.drops_oldest:
            if self.merge(shard):
                # The next slice soon, but what else is due has its turn before.
                self._wake()
            return
        while len(by_store(shard.store.hash_stores)) > self._on_full.hash_stores_max:
            self.drop_oldest(shard)

    def checkpoint(self, shards: Sequence[Shard]) -> None:
        """Write checkpoints of some shards now, where they differ from the last; durable. None where space is short.

        Whoever puts into one of them, or flushes, waits while what it holds is flushed and its index copied.
        """
        with self.lock:
            self._volume.check_process()
            checkpoint_group(self._volume, shards, self._flush_lock)

    def tidy(self, *, incarnate: bool, begin: bool) -> bool:
        """Pack some journals now, if any are more than half dead; whether there may be more to do.

        :param incarnate: incarnate everything that was put before the first of these calls, and merge it
        :param begin: this is the first
        """
        shards = list(self._shards.values())
        if not incarnate:
            return any(self.pack(shard) for shard in shards)
        if begin:
            for shard in shards:
                self._freeze(shard)
                # What others put from here on is not waited for: it might never end.
                superblock = self._volume.superblock
                extents = (*superblock.hash_stores(shard.number), *superblock.journals(shard.number))
                closed = [each.order for each in extents if each.state == CLOSED]
                self._until[shard.number] = max(closed, default=-1)
        for number, until in list(self._until.items()):
            shard = self._shards[number]
            if not self._incarnate_anyway(shard, until):
                if self._on_full.drops_oldest:
                    self._limit(shard)
                elif self.merge(shard, everything=True, until=until):
                    return True
                self._until.pop(number, None)
            return True
        return False

    def _incarnate_anyway(self, shard: Shard, until: int) -> bool:
        """As :meth:`incarnate`; on a full volume in the reserve, which is for that once all hash stores are one."""
        try:
            return self.incarnate(shard, until=until)
        except DiskFullError:
            if self._on_full.drops_oldest:
                raise
            with self.lock:
                return self._merge(shard, everything=True) or self._incarnate(shard, until=until, kept=True)

    def _freeze(self, shard: Shard) -> None:
        """Close the active journal of a shard, and make space for the next one where there is none."""
        while True:
            try:
                with self._flush_lock:
                    freeze(shard)
            except DiskFullError:
                if not self.make_space(deletes=True):
                    raise
            else:
                return

    def release(self) -> None:
        """Let go of the shards."""
        # Another one, not this one emptied: somebody may be going through it.
        self._shards = {}
        self._making_space.release()
