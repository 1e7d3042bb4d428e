"""Merging: neighbouring hash stores of a shard become one, so that a lookup asks few of them.

Each merge takes stores of about one size to one that is some times larger: a record is merged as often as the
logarithm of the data says. The oldest of all loses its deletions, since nothing is older.

It is done in slices, from the smallest hash on. What a slice has written becomes a part of the newest of the stores,
durably, and of the parts that it was made from those go of which nothing is left. So a merge takes a few parts of
space and of memory, however large the stores are; and one that was cut off goes on where it was, also after a crash:
the others of its stores begin behind hash 0 as long as it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from siltstone.errors import LogStoreFullError, StateError
from siltstone.format.superblock import Part
from siltstone.hash_store.merging import Merging
from siltstone.index.layout import HASH_STORE_PARTS_MAX, HASH_STORES_MAX
from siltstone.log_store.older_views import by_store, first_hash
from siltstone.shard.changes import Merge, Narrowed
from siltstone.shard.filling import Amount, Unflushed, fill_part, filled, give_back, switching
from siltstone.shard.space import TIER_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.hash_store.merging import Left
    from siltstone.hash_store.view import HashStoreView
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


#: where a shard has so many, some are merged before there is one more; a whole one has three of a size
MANY = HASH_STORES_MAX // 2
#: hash stores of up to so many bytes are all of the lowest size
_LOWEST_BYTES = 1 << 20

#: the parts of a hash store, in the order of their hashes
Store = tuple["Extent", ...]


def tier(length: int) -> int:
    """How large a hash store of `length` bytes is, in powers of TIER_WIDTH of the lowest size."""
    found = 0
    while length > _LOWEST_BYTES:
        length //= TIER_WIDTH
        found += 1
    return found


def choose_merge(newest_first: Sequence[Store], *, everything: bool = False) -> tuple[Store, ...]:
    """Neighbours that are to be merged, newest first; () where none are.

    Those that a merge is not through with, if there are any. Else the newest ones of one size, where they are enough;
    an older one that is smaller counts as large as those that are newer. So there are never more than TIER_WIDTH - 1 of
    a size, whatever sizes come in whatever order.

    :param everything: whatever sizes they have, until there is but one
    """
    begun = [number for number, parts in enumerate(newest_first) if first_hash(parts[0]) > 0]
    if begun:
        start = begun[-1]
        while start > 0 and first_hash(newest_first[start][0]) > 0:
            start -= 1
        run_of_begun = tuple(newest_first[start : begun[-1] + 1])
        if len(run_of_begun) > 1:
            return run_of_begun
    if everything:
        return tuple(newest_first[:TIER_WIDTH]) if len(newest_first) > 1 else ()
    size = 0
    run: list[Store] = []
    for parts in newest_first:
        length = sum(part.length for part in parts)
        if tier(length) > size:
            size, run = tier(length), []
        run.append(parts)
        if len(run) == TIER_WIDTH:
            return tuple(run)
    return ()


def merge_slice(shard: Shard, stores: Sequence[Store]) -> None:
    """Merge what comes next of neighbouring hash stores of a shard, newest first; durable when it returns.

    DiskFullError where there is no space for it beside the old, LogStoreFullError where the index can list no more
    parts, DamageError where one is not as it was written: nothing is changed then.
    """
    begin = sorted(first_hash(parts[0]) for parts in stores)[min(1, len(stores) - 1)]
    # What lies before is in one of them alone: merged already.
    _write_slice(shard, stores, begin)


def rewrite_slice(
    shard: Shard,
    parts: Store,
    begin: int,
    overruled: NDArray[np.uint8],
    switched: Callable[[int | None], object],
) -> int | None:
    """Write what comes next of one hash store of a shard anew, without what is overruled; durable when it returns.

    Returns the hash where it ends, None at the end of the hash store. Errors as :func:`merge_slice`.

    :param begin: where one of its parts begins [hash]
    :param overruled: see :class:`siltstone.hash_store.merging.Merging`; by what is durable
    :param switched: called with what is returned once lookups go on in what was written, with the shard's lock
    """
    return _write_slice(shard, [parts], begin, overruled, switched)


def _write_slice(
    shard: Shard,
    stores: Sequence[Store],
    begin: int,
    overruled: NDArray[np.uint8] | None = None,
    switched: Callable[[int | None], object] | None = None,
) -> int | None:
    store = shard.store
    before = store.hash_stores
    order, oldest = stores[0][0].order, stores[-1][0].order
    sources = [[part for part in parts if first_hash(part) >= begin] for parts in stores]
    for part in (part for parts in stores for part in parts if first_hash(part) < begin):
        if (store.open_hash_store(part).last_fence or 0) >= begin:
            raise StateError(
                f"shard {shard.number}: part {part.id} of a hash store has more than what was merged already",
                what=f"extent {part.id}",
                state="merged in part",
            )
    if len(before) >= HASH_STORE_PARTS_MAX:
        raise LogStoreFullError(
            f"shard {shard.number} has as many parts of hash stores as an index can list",
            limit=HASH_STORE_PARTS_MAX,
        )
    views = [[store.open_hash_store(part) for part in parts] for parts in sources]
    merging = Merging(
        [
            [(view, *(part.part or ())) for view, part in zip(opened, parts, strict=True)]
            for opened, parts in zip(views, sources, strict=True)
        ],
        drop_deletes=all(part.order >= oldest for part in before),
        below=store.older_than(oldest),
        overruled=overruled,
    )
    unflushed = Unflushed(shard.volume)
    merged = fill_part(shard, merging, _amount_of(views, sources), order, begin, kept=True)
    try:
        freed, narrowed = _taken(sources, merging.left(), merging.place)
        changed = {part.id for part in (*freed, *narrowed)}
        left = [part for part in before if part.id not in changed] + narrowed
        unflushed.flush()
        shard.check()
        # Here, where it can still be given up: what is amiss with the new one.
        left += [] if merged is None else [merged]
        store.open_hash_stores(left)
    except BaseException:
        if merged is not None:
            give_back(shard, merged)
        raise
    replace_parts(
        shard,
        left,
        Merge(
            shard.number,
            order,
            tuple(part.id for part in freed),
            tuple(Narrowed(part.id, part.part) for part in narrowed if part.part is not None),
            None if merged is None else filled(merged),
        ),
        None if switched is None else lambda: switched(merging.place),
    )
    return merging.place


def _amount_of(views: Sequence[Sequence[HashStoreView]], sources: Sequence[Sequence[Extent]]) -> Amount:
    """What there is in some parts at most."""
    headers = [view.header for opened in views for view in opened]
    return Amount(
        sum(part.part.entries for parts in sources for part in parts if part.part is not None),
        sum(header.entry_bytes for header in headers),
        max((header.largest_entry for header in headers), default=0) or 2,
    )


def _taken(
    sources: Sequence[Sequence[Extent]], lefts: Sequence[Left], place: int | None
) -> tuple[list[Extent], list[Extent]]:
    """Of which parts nothing is left, and of each store the one where the next slice begins, as it is then."""
    freed: list[Extent] = []
    narrowed: list[Extent] = []
    for parts, left in zip(sources, lefts, strict=True):
        freed += parts[: left.part]
        for part in parts[left.part :][:1]:
            assert place is not None
            # At one hash in all of them, also where one has nothing before a greater one.
            narrowed.append(replace(part, part=Part(place, left.entries, left.tombstones)))
    return freed, narrowed


def drop_oldest(shard: Shard) -> bool:
    """Give up the oldest hash store of a shard and what it holds; False where there is none."""
    stores = by_store(shard.store.hash_stores)
    if not stores:
        return False
    left = [part for parts in stores[:-1] for part in parts]
    gone = stores[-1]
    change = Merge(shard.number, gone[0].order, tuple(part.id for part in gone), (), None)
    replace_parts(shard, left, change)
    return True


def replace_parts(
    shard: Shard, left: Sequence[Extent], change: Merge, switched: Callable[[], object] | None = None
) -> None:
    """Let lookups go on in what is left, and then the superblock say so."""
    with switching(shard):
        with shard.lock:
            shard.store.show_hash_stores(left)
            if switched is not None:
                switched()
        shard.volume.publish(change)
