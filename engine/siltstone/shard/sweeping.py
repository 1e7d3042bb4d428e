"""Sweeping: what journals overrule goes from a hash store, part by part, before it would be merged with them.

A hash store keeps what was overwritten or deleted since until a newer one is merged into it, and the journals keep the
deletions until then. Where space is short that may be all there is to free; and to incarnate those journals first would
take more of it. So the hash store is written anew without what closed journals overrule, a slice at a time as in a
merge, and the index forgets the deletions that have nothing left to delete: then packing frees those too.

What is given up was overruled by entries of closed journals, which are durable. A crash at any point leaves parts that
were swept and parts that were not; with the journals both say the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from siltstone.format.constants import JOURNAL_SIZE_MAX
from siltstone.format.superblock import CLOSED
from siltstone.hash_store.sorting import hashes_of, sort_entries
from siltstone.log_store.deletions import entry_mask, entry_starts
from siltstone.log_store.older_views import by_store, first_hash
from siltstone.shard.merging import rewrite_slice
from siltstone.shard.packing import clusters_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard

#: entries that overrule others are gathered up to so many bytes: they lie in memory twice while they are sorted
_GATHERED_BYTES = JOURNAL_SIZE_MAX
#: clusters of a journal that are looked through at once, as when it is packed
_PIECE_CLUSTERS = 64
#: hashes are less than this
_HASHES_END = 1 << 64


class Overruling:
    """Entries of closed journals of a shard that overrule some of its hash stores, by their hashes.

    These journals and hash stores stay as they are while :meth:`look` goes through them; the caller sees to that.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._named = _named(shard)
        #: whether all there is was looked through
        self.is_all = False
        self._take(np.empty(0, np.uint8))

    def look(self, end: float = math.inf) -> None:
        """Go on to look for them, until `end` or until there are many."""
        shard = self._shard
        found = [self._stream]
        size = len(self._stream)
        while size < _GATHERED_BYTES and shard.volume.ports.clock() < end:
            stream, entries = next(self._named, (None, 0))
            if stream is None:
                self.is_all = True
                break
            held = shard.store.index.older.holding(stream, entries)
            found.append(stream[entry_mask(stream, held)])
            size += len(found[-1])
        if len(found) > 1:
            self._take(np.concatenate(found))

    def _take(self, stream: NDArray[np.uint8]) -> None:
        types, secret = self._shard.store.types, self._shard.volume.superblock.uuid
        self._stream = sort_entries(types, secret, [stream])
        self._hashes = hashes_of(types, secret, self._stream)
        self._starts = np.append(entry_starts(self._stream), len(self._stream))

    def __len__(self) -> int:
        return len(self._hashes)

    def between(self, first: int, end: int) -> NDArray[np.uint8]:
        """Those from one hash on, and up to another, packed."""
        return self._stream[self._starts[self._number(first)] : self._starts[self._number(end)]]

    def _number(self, first: int) -> int:
        """How many have a smaller hash."""
        return len(self) if first == _HASHES_END else int(np.searchsorted(self._hashes, np.uint64(first)))


def _named(shard: Shard) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """What the index names in the closed journals of a shard, packed, and how many: those with many deletions first."""
    tallies = {
        extent: shard.store.tally(extent)
        for extent in shard.volume.superblock.journals(shard.number)
        if extent.state == CLOSED
    }
    named = {
        extent: tally.deletions for extent, tally in tallies.items() if tally is not None and tally.named
    }
    for extent in sorted(named, key=lambda extent: -named[extent]):
        for clusters, first, last_used in clusters_of(shard, extent, _PIECE_CLUSTERS):
            with shard.lock:
                shard.check()
                stream, places, _largest = shard.store.living(
                    extent, clusters, first, last_used, keep_deletes=False
                )
            yield stream, len(places)


class Sweep:
    """One way through the hash store of a shard that has but one, from its smallest hash on.

    :param shard: its
    :param overruling: what it is to lose
    """

    def __init__(self, shard: Shard, overruling: Overruling) -> None:
        self._shard = shard
        self._overruling = overruling
        self._order = _only(shard)[0].order
        self._first = 0

    @property
    def over(self) -> bool:
        """Whether all of it was swept, or it is no longer there as it was."""
        return self._first == _HASHES_END or not any(
            part.order == self._order and first_hash(part) >= self._first for part in _only(self._shard)
        )

    def slice(self) -> None:
        """Sweep what comes next; durable when it returns. Errors as :func:`siltstone.shard.merging.merge_slice`."""
        shard = self._shard
        parts = _only(shard)
        begin = min(first_hash(part) for part in parts if first_hash(part) >= self._first)
        overruling = self._overruling
        end = rewrite_slice(
            shard,
            parts,
            begin,
            overruling.between(begin, _HASHES_END),
            # By key, whatever deletes it by now and wherever that is: nothing is left that it could delete.
            lambda place: shard.store.forget_deletions(overruling.between(begin, _behind(place))),
        )
        self._first = _behind(end)


def _behind(place: int | None) -> int:
    return _HASHES_END if place is None else place


def _only(shard: Shard) -> tuple[Extent, ...]:
    """The parts of the only hash store of a shard; () where it has none, or several."""
    stores = by_store(shard.store.hash_stores)
    return stores[0] if len(stores) == 1 else ()
