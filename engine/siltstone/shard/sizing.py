"""How large the next journal of a shard should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from siltstone.format.constants import CLUSTER_SIZE, JOURNAL_SIZE_MAX

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock
    from siltstone.journal.sealed import SealedJournal
    from siltstone.log_store.log_store import LogStore

#: a journal takes at most one part in so many of what its shard uses: as much is kept free so that any can be copied
_PARTS: Final = 8
#: beside which what is kept for deletions is no larger than a journal may be
_SIZE_MAX: Final = JOURNAL_SIZE_MAX // 2


def next_size(superblock: Superblock, store: LogStore, journal: SealedJournal) -> int:
    """Bytes that the journal behind `journal`, the active one of the shard with this log store, should have.

    Twice as many, but no more than what is alive in the shard's journals takes, so that what is overwritten or deleted
    for ever does not make it large; and a small part of what the shard uses.
    """
    number = journal.extent.shard
    alive = used = entries = 0
    for extent in superblock.journals(number):
        tally = store.tally(extent)
        if tally is not None:
            alive += tally.named + tally.keyless
            entries += tally.entries
            end = extent.end.cluster if extent.end else 0
            used += (1 + (journal.writer.index if extent.id == journal.extent.id else end)) * CLUSTER_SIZE
    wanted = used * alive // max(1, entries)
    part = (used + sum(each.length for each in superblock.hash_stores(number))) // _PARTS
    return min(2 * journal.extent.length, _power_of_two(wanted), _power_of_two(part + 1) // 2, _SIZE_MAX)


def _power_of_two(size: int) -> int:
    """The least one that is not less than `size`."""
    return 1 << max(0, size - 1).bit_length()
