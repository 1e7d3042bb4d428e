"""What gives space on a full volume: journals of which little is dead are packed, hash stores become one that is swept.

All of that copies much for what it gives. So it is done while somebody waits for space, until there is some.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from siltstone.format.superblock import CLOSED
from siltstone.shard.choosing import WORTH, Candidate, candidates_of, worth_cleaning
from siltstone.shard.packing import Cleaning
from siltstone.shard.rolling import close_active, freeze
from siltstone.shard.space import closed_bytes
from siltstone.shard.sweeping import Overruling, Sweep

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)

#: the active journal is closed for cleaning only where no more than one part in so many of it is left: it may be that
#: of another shard than the one that needs space, which would have to find a new one
_LEFT_PARTS: Final = 8


class MakingSpace:
    """Makes space in the shards of a group, in one at a time; the caller sees to that.

    :param volume: theirs
    :param flush: returns once all that was appended to a shard is durable
    :param flush_lock: who holds it flushes or rolls
    :param merge: merges a slice of any hash stores of a shard; False where it has but one
    """

    def __init__(
        self,
        volume: ShardVolume,
        flush: Callable[[Shard], None],
        flush_lock: threading.Lock,
        merge: Callable[[Shard], bool],
    ) -> None:
        self._volume = volume
        self._flush = flush
        self._flush_lock = flush_lock
        self._merge = merge
        #: by shard the sweep that was begun
        self._sweeps: dict[int, Sweep] = {}
        #: by shard what was found for a sweep that was not begun, and in which hash stores and journals
        self._found: dict[int, tuple[object, Overruling]] = {}

    def clean(self, shard: Shard, *, sparing: bool, end: float) -> bool:
        """Pack journals of a shard although little of them is dead, until that gives space; False where it does not.

        :param sparing: only where it gives no small part of what must be copied for it
        :param end: when to give up: somebody waits, and the next one goes on where this one ends
        """
        before = closed_bytes(self._volume.superblock, shard.number)
        # Each time there is less that is dead.
        step = 0
        while self._volume.ports.clock() < end:
            candidates = candidates_of(shard)
            run = worth_cleaning(shard, candidates, sparing=sparing, begun=step > 0)
            if run is None:
                return False
            closed = [each.extent for each in candidates]
            behind = closed[closed.index(run.sources[-1]) + 1 :][:1]
            flush = partial(self._flush, shard)
            Cleaning(shard, run, flush, behind=behind[0] if behind else None).carry_out()
            _log.debug("shard %s: cleaned %s", shard.number, [source.id for source in run.sources])
            if closed_bytes(self._volume.superblock, shard.number) < before:
                return True
            step += 1
        return False

    def clean_all(self, shard: Shard, *, end: float) -> bool:
        """Close the active journal too, and clean all of them; False where that gives no space either.

        Entries may be smaller than what deletes them, and that is given up only behind journals that are clean.
        """
        journal = shard.journal
        tally = None if journal is None else shard.store.tally(journal.extent)
        if journal is None or tally is None or not tally.deletions:
            return False
        if journal.room > journal.extent.length // _LEFT_PARTS:
            return False
        # As it will be.
        last = Candidate(replace(journal.extent, end=journal.written_end), tally)
        if worth_cleaning(shard, [*candidates_of(shard), last], sparing=False, begun=False) is None:
            return False
        with self._flush_lock:
            close_active(shard)
        return self.clean(shard, sparing=False, end=end)

    def condense(self, shard: Shard, *, sparing: bool, end: float) -> bool:
        """Merge the hash stores of a shard into one, and sweep that, until that gives space; False where it does not.

        :param sparing: swept only where it gives no small part of what must be copied for it
        :param end: when to give up: somebody waits, and the next one goes on where this one ends
        """
        before = closed_bytes(self._volume.superblock, shard.number)
        while self._volume.ports.clock() < end:
            if not self._merge(shard) and not self._sweep(shard, sparing=sparing, end=end):
                return False
            if closed_bytes(self._volume.superblock, shard.number) < before:
                return True
        return False

    def _sweep(self, shard: Shard, *, sparing: bool, end: float) -> bool:
        """Sweep a slice of the only hash store of a shard, or clean its journals after that; False where neither gives
        anything.
        """
        sweep = self._sweeps.get(shard.number)
        if sweep is not None and sweep.over:
            del self._sweeps[shard.number]
            sweep = None
        if sweep is None:
            sweep = self._begin_sweep(shard, sparing=sparing, end=end)
        if sweep is not None:
            sweep.slice()
            _log.debug("shard %s: swept a slice of its hash store", shard.number)
            return True
        # What the index forgot is dead in the journals.
        return self.clean(shard, sparing=sparing, end=end) or (not sparing and self._close_deletions(shard))

    def _begin_sweep(self, shard: Shard, *, sparing: bool, end: float) -> Sweep | None:
        """A sweep of the only hash store of a shard; None where it would give too little."""
        superblock = self._volume.superblock
        parts = superblock.hash_stores(shard.number)
        closed = [each for each in superblock.journals(shard.number) if each.state == CLOSED]
        if not parts:
            return None
        looked_at = [(each.id, each.generation) for each in (*parts, *closed)]
        known, overruling = self._found.pop(shard.number, (None, None))
        # What these hold of each other only becomes less: it is looked for once.
        if overruling is None or known != looked_at:
            overruling = Overruling(shard)
        now = self._volume.ports.clock()
        overruling.look(now + (end - now) / 2)
        length, entries = _length_and_entries(parts)
        if length * len(overruling) // max(1, entries) < (int(WORTH * length) if sparing else 1):
            self._found[shard.number] = looked_at, overruling
            return None
        sweep = self._sweeps[shard.number] = Sweep(shard, overruling)
        return sweep

    def _close_deletions(self, shard: Shard) -> bool:
        """Close the active journal where with it what journals delete of a hash store is worth a sweep; whether it is.

        The next one is of what is kept for the shard: sweeping gives that back.
        """
        tally = None if shard.journal is None else shard.store.tally(shard.journal.extent)
        length, entries = _length_and_entries(self._volume.superblock.hash_stores(shard.number))
        if tally is None or not min(tally.deletions, tally.named):
            return False
        if length * shard.store.index.tombstones // max(1, entries) < self._volume.superblock.erase_block:
            return False
        with self._flush_lock:
            freeze(shard, kept=True)
        return True

    def release(self) -> None:
        """Let go of the shards."""
        self._sweeps.clear()
        self._found.clear()


def _length_and_entries(parts: Iterable[Extent]) -> tuple[int, int]:
    """Bytes and entries of some parts of hash stores."""
    found = [(each.length, each.part.entries) for each in parts if each.part is not None]
    return sum(length for length, _entries in found), sum(entries for _length, entries in found)
