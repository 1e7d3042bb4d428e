"""Incarnation: the oldest journals of a shard become a hash store, which takes next to no memory.

As when journals are packed nothing waits for it, and a crash leaves the journals or the hash store: see packing.py.
A lookup finds a key in the index or in the hash store at any moment: that is listed first, then the index lets go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from siltstone.errors import LogStoreFullError
from siltstone.format.constants import CLUSTER_SIZE, JOURNAL_SIZE_MAX
from siltstone.format.superblock import CLOSED
from siltstone.hash_store.sorting import Sorted, sort_entries
from siltstone.index.layout import HASH_STORE_PARTS_MAX
from siltstone.index.table import NO_PLACE
from siltstone.log_store.deletions import entry_mask
from siltstone.shard.changes import Incarnate
from siltstone.shard.choosing import Run
from siltstone.shard.filling import Amount, fill_part, filled, give_back
from siltstone.shard.packing import Packing

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy import uint64
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard

#: journals of at most so many bytes are incarnated together: what they hold lies in memory twice while it is sorted
SOURCES_BYTES = JOURNAL_SIZE_MAX
#: with more parts of hash stores none is made but by merges, which need some themselves before they make them fewer
_PARTS_MAX = HASH_STORE_PARTS_MAX - 64


class Oldest(NamedTuple):
    """Journals that are incarnated together, oldest first, and those older ones that stay since nothing has a key."""

    run: Run
    passed: tuple[Extent, ...]


def choose_oldest(shard: Shard, *, until: int | None = None, bytes_max: int = SOURCES_BYTES) -> Oldest | None:
    """The oldest closed journals of a shard, or None where there are none with keys.

    :param until: none that comes after this place (`order`) in the replay
    :param bytes_max: the first one with keys, and what follows up to so many bytes

    What has no key is written again with each run that takes it along; so journals in which nothing has one are
    left out, unless they are small beside what this run has of that: each entry is copied as often as the logarithm
    of all says, and there are no more such journals than that.
    """
    passed: list[Extent] = []
    chosen: list[Extent] = []
    size = keyless = 0
    for extent in shard.volume.superblock.journals(shard.number):
        tally = shard.store.tally(extent)
        behind = until is not None and extent.order > until
        if extent.state != CLOSED or extent.end is None or tally is None or behind:
            break
        if not chosen and tally.keyless == tally.entries:
            passed.append(extent)
            continue
        used = _used(extent)
        size += used
        if chosen and size > bytes_max:
            break
        chosen.append(extent)
        keyless += used * tally.keyless // max(1, tally.entries)
    if not chosen:
        return None
    while keyless and passed and _used(passed[-1]) <= 2 * keyless:
        keyless += _used(passed[-1])
        chosen.insert(0, passed.pop())
    return Oldest(Run(tuple(chosen), oldest=True), tuple(passed))


def _used(extent: Extent) -> int:
    """Bytes of clusters in a closed journal."""
    return 0 if extent.end is None else (1 + extent.end.cluster) * CLUSTER_SIZE


class _Dropped(NamedTuple):
    """Entries that go into the hash store, packed, and where the index names them."""

    stream: NDArray[np.uint8]
    places: NDArray[uint64]


class Incarnation(Packing):
    """One run of the oldest journals on its way into a hash store; what has no key goes to a fresh journal.

    :param shard: theirs
    :param oldest: what is incarnated
    :param flush: returns once all that was appended to the shard is durable
    :param kept: the hash store may go to what is kept for the shard, a little more of which it takes than the journals
        give: so only where all hash stores of the shard are one, and a merge that gives that back comes next
    """

    def __init__(
        self,
        shard: Shard,
        oldest: Oldest,
        flush: Callable[[], None],
        *,
        kept: bool = False,
    ) -> None:
        super().__init__(shard, oldest.run, flush)
        self._kept = kept
        self._passed = oldest.passed
        self._keyed: list[_Dropped] = []
        self._parts: list[Extent] = []

    def carry_out(self) -> None:
        """As :meth:`Packing.carry_out`, into a hash store."""
        shard, store = self._shard, self._shard.store
        with shard.lock:
            store.gather_deletions(begin=True)
        try:
            super().carry_out()
        finally:
            with shard.lock:
                store.gather_deletions(begin=False)

    def _keep(self, source: Extent, clusters: memoryview, first: int, last_used: int) -> None:
        """Take what counts of some clusters: entries with a key for the hash store, the others for a journal."""
        stream, places, largest = self._living(source, clusters, first, last_used)
        if len(places) == 0:
            return
        keyless = places == NO_PLACE
        if keyless.any():
            rows = entry_mask(stream, keyless)
            self._add(stream[rows], places[keyless], largest, len(clusters) // CLUSTER_SIZE)
            stream, places = stream[~rows], places[~keyless]
        if len(places):
            self._keyed.append(_Dropped(stream.copy(), places.copy()))
            self._largest = max(self._largest, largest)

    def _fill(self) -> None:
        if not self._keyed:
            return
        shard = self._shard
        # Nothing older: there is nothing that a deletion could still delete.
        drop_deletes = not shard.store.hash_stores
        sorted_entries = sort_entries(
            shard.store.types,
            shard.volume.superblock.uuid,
            [piece.stream for piece in self._keyed],
            drop_deletes=drop_deletes,
        )
        entries = sum(len(piece.places) for piece in self._keyed)
        order = max(source.order for source in self._run.sources)
        source = Sorted(shard.store.types, shard.volume.superblock.uuid, sorted_entries)
        left = len(sorted_entries)
        while source.place is not None:
            if len(shard.store.hash_stores) + len(self._parts) >= _PARTS_MAX:
                raise LogStoreFullError(
                    f"shard {shard.number} has as many parts of hash stores as leave merges some",
                    limit=_PARTS_MAX,
                )
            first = source.place if self._parts else 0
            part = fill_part(
                shard,
                source,
                Amount(entries, left, self._largest),
                order,
                first,
                kept=self._kept,
            )
            assert part is not None
            assert part.part is not None
            self._parts.append(part)
            entries -= part.part.entries
            left = source.left

    def _make_durable(self) -> None:
        self._fill()
        super()._make_durable()
        # Here, where it can still be given up: what is amiss with it, and whether there are too many.
        self._shard.store.open_hash_stores((*self._parts, *self._shard.store.hash_stores))

    def _give_up(self) -> None:
        super()._give_up()
        for part in self._parts:
            give_back(self._shard, part)

    def _switch(self) -> None:
        shard, store = self._shard, self._shard.store
        if self._parts:
            with shard.lock:
                store.show_hash_stores((*self._parts, *store.hash_stores))
        for piece in self._keyed:
            with shard.lock:
                store.drop(piece.stream, piece.places)
        self._keyed = []
        with shard.lock:
            store.shrink()
        packed = self._show_outputs()
        self._let_go()
        shard.volume.publish(
            Incarnate(
                shard.number,
                tuple(source.id for source in self._run.sources),
                packed,
                tuple(map(filled, self._parts)),
                tuple(journal.id for journal in self._passed),
            )
        )


class Forgetting(Incarnation):
    """The oldest journals of a shard given up with what they hold; what has no key stays, in a fresh journal."""

    def _fill(self) -> None:
        """Make nothing of it."""
