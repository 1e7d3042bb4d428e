"""How large the next journal of a shard should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from siltstone.format.constants import CLUSTER_SIZE, JOURNAL_SIZE_MAX
from siltstone.shard.space import closed_bytes
from siltstone.volume.allocator import round_to_erase_blocks

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock
    from siltstone.journal.sealed import SealedJournal
    from siltstone.log_store.log_store import LogStore

#: a journal takes at most one part in so many of what its shard uses: as much is kept free so that any can be copied
_PARTS: Final = 8
#: beside which what is kept for deletions is no larger than a journal may be
_SIZE_MAX: Final = JOURNAL_SIZE_MAX // 2
#: a part of a hash store takes at most one in so many of what its shard uses: merging takes some parts of space
_STORE_PARTS: Final = 64
#: or one in so many, where there are so many shards that the superblock could not list them
_STORE_PARTS_MIN: Final = 16
_STORE_PARTS_OF_ALL: Final = 1024
#: parts become no larger than a journal, so that building one takes little memory, until there are so many
_STORE_PARTS_MAX: Final = 768
_ERASE_BLOCKS_MIN: Final = 2


def part_size(superblock: Superblock, number: int) -> int:
    """Most bytes that a part of a new hash store of this shard should have, whole erase blocks."""
    used = closed_bytes(superblock, number)
    parts = min(_STORE_PARTS, max(_STORE_PARTS_MIN, _STORE_PARTS_OF_ALL // superblock.shards))
    size = max(min(used // parts, JOURNAL_SIZE_MAX), used // _STORE_PARTS_MAX)
    block = superblock.erase_block
    return max(_ERASE_BLOCKS_MIN * block, round_to_erase_blocks(size, block))


def next_size(
    superblock: Superblock, store: LogStore, journal: SealedJournal, before: SealedJournal | None = None
) -> int:
    """Bytes that the journal behind `journal`, the active one of the shard with this log store, should have.

    Twice as many, but no more than what is alive in the shard's journals takes, so that what is overwritten or deleted
    for ever does not make it large; and a small part of what the shard uses.

    :param before: the one that was the active one until now, where the superblock does not know yet that it is not
    """
    number = journal.extent.shard
    active = before or journal
    alive = used = entries = 0
    for extent in superblock.journals(number):
        tally = store.tally(extent)
        if tally is not None:
            alive += tally.named + tally.keyless
            entries += tally.entries
            end = extent.end.cluster if extent.end else 0
            used += (1 + (active.writer.index if extent.id == active.extent.id else end)) * CLUSTER_SIZE
    wanted = used * alive // max(1, entries)
    part = (used + sum(each.length for each in superblock.hash_stores(number))) // _PARTS
    return min(2 * journal.extent.length, _power_of_two(wanted), _power_of_two(part + 1) // 2, _SIZE_MAX)


def _power_of_two(size: int) -> int:
    """The least one that is not less than `size`."""
    return 1 << max(0, size - 1).bit_length()
