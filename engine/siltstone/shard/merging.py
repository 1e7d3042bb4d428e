"""Merging: neighbouring hash stores of a shard become one, so that a lookup asks few of them.

Each merge takes stores of about one size to one that is some times larger: a record is merged as often as the
logarithm of the data says. The oldest of all loses its deletions, since nothing is older.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from siltstone.format.superblock import CLOSED
from siltstone.hash_store.merging import merge
from siltstone.index.layout import HASH_STORES_MAX
from siltstone.shard.changes import Merge
from siltstone.shard.filling import Unflushed, fill_hash_store, filled, give_back, switching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siltstone.format.superblock import Extent, Superblock
    from siltstone.shard.shard import Shard

#: hash stores of a shard in a window over the newest records, unless told otherwise
HASH_STORES_MAX_DEFAULT: Final = 16
#: as many as an index can list, but for some that come before the oldest go
HASH_STORES_KEPT_MAX: Final = 48


@dataclass(frozen=True, slots=True)
class OnFull:
    """What becomes of hash stores when there are many, and when the volume is full.

    :param drops_oldest: the oldest are given up, with what they hold, and none are merged: a window over the newest
        records. Else they are merged, and a full volume takes nothing new
    :param hash_stores_max: with `drops_oldest` so many a shard are kept
    """

    drops_oldest: bool = False
    hash_stores_max: int = HASH_STORES_MAX_DEFAULT


#: so many neighbours of one size are merged
TIER_WIDTH = 4
#: where a shard has so many, some are merged before there is one more; a whole one has three of a size
MANY = HASH_STORES_MAX // 2
#: hash stores of up to so many bytes are all of the lowest size
_LOWEST_BYTES = 1 << 20


def tier(length: int) -> int:
    """How large a hash store of `length` bytes is, in powers of TIER_WIDTH of the lowest size."""
    found = 0
    while length > _LOWEST_BYTES:
        length //= TIER_WIDTH
        found += 1
    return found


def choose_merge(newest_first: Sequence[Extent]) -> tuple[Extent, ...]:
    """Neighbours that are to be merged, newest first; () where none are.

    The newest ones of one size, where they are enough; an older one that is smaller counts as large as those that
    are newer. So there are never more than TIER_WIDTH - 1 of a size, whatever sizes come in whatever order.
    """
    size = 0
    run: list[Extent] = []
    for extent in newest_first:
        if tier(extent.length) > size:
            size, run = tier(extent.length), []
        run.append(extent)
        if len(run) == TIER_WIDTH:
            return tuple(run)
    return ()


def merge_hash_stores(shard: Shard, sources: Sequence[Extent]) -> None:
    """Merge neighbouring hash stores of a shard, newest first; durable when it returns.

    DiskFullError where there is no space for the new one beside the old, DamageError where one is not as it was
    written: nothing is changed then.
    """
    store = shard.store
    before = store.hash_stores
    views = [store.open_hash_store(source) for source in sources]
    drop_deletes = before[-1] in sources
    unflushed = Unflushed(shard.volume)
    merged = fill_hash_store(
        shard,
        merge(views, drop_deletes=drop_deletes, below=store.older_than(sources[-1])),
        sum(view.header.entries for view in views),
        sum(view.header.entry_bytes for view in views),
        max((view.header.largest_entry for view in views), default=0) or 2,
    )
    at = before.index(sources[0])
    left = (*before[:at], *(() if merged is None else (merged,)), *before[at + len(sources) :])
    try:
        unflushed.flush()
        shard.check()
        # Here, where it can still be given up: what is amiss with the new one.
        store.open_hash_stores(left)
    except BaseException:
        if merged is not None:
            give_back(shard, merged)
        raise
    replace(shard, left, sources, merged)


def drop_oldest(shard: Shard) -> bool:
    """Give up the oldest hash store of a shard and what it holds; False where there is none."""
    before = shard.store.hash_stores
    if not before:
        return False
    replace(shard, before[:-1], before[-1:], None)
    return True


def replace(shard: Shard, left: Sequence[Extent], sources: Sequence[Extent], merged: Extent | None) -> None:
    """Let lookups go on in what is left, newest first, and then the superblock say so."""
    change = Merge(shard.number, tuple(source.id for source in sources), filled(merged))
    with switching(shard):
        with shard.lock:
            shard.store.show_hash_stores(left)
        shard.volume.publish(change)


def closed_bytes(superblock: Superblock, shard: int) -> int:
    """Bytes of the closed journals and hash stores of a shard."""
    extents = (*superblock.hash_stores(shard), *superblock.journals(shard))
    return sum(extent.length for extent in extents if extent.state == CLOSED)
