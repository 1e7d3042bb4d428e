"""The next journals of shards, made ready before they are needed: nothing that puts waits for while they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, LogStoreFullError
from siltstone.format.constants import CLUSTER_SIZE, SLOT_CLUSTERS
from siltstone.shard import space
from siltstone.shard.changes import TakeEmpty, TakeNext
from siltstone.shard.filling import give_back
from siltstone.shard.locking import TOGETHER_MAX, holding
from siltstone.shard.sizing import next_size
from siltstone.volume.allocator import reserves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from siltstone.format.superblock import Extent
    from siltstone.shard.shard import Shard


def wants_spare(shard: Shard) -> bool:
    """Whether the next journal should be made ready: the active one is half full and there is no spare.

    A quarter full where the roll to it is to be completed by the same superblock write, which takes longer.
    """
    return _lacks_spare(shard, 1.0)


def soon_want_spare(shards: Sequence[Shard]) -> list[Shard]:
    """Those of some shards that want a spare, or will before long; no more than may be made together."""
    # They fill alike: what one of them wants now the others want a moment later, and together it costs the same as one.
    lacking = sorted(shards, key=lambda shard: not wants_spare(shard))
    return [shard for shard in lacking if _lacks_spare(shard, 3 / 4)][:TOGETHER_MAX]


def _lacks_spare(shard: Shard, part: float) -> bool:
    """Whether there is no spare, and the active journal is filled to this part of where one is wanted."""
    journal = shard.journal
    part *= 1 / 4 if shard.turned else 1 / 2
    return (
        shard.spare is None
        and journal is not None
        and journal.poison is None
        and journal.writer.index >= part * journal.clusters
    )


def make_spares(shards: Sequence[Shard]) -> None:
    """Make the next journals of several shards ready, with one superblock write and one flush.

    Errors as :func:`make_spare`; then nobody has got one.
    """
    in_order = sorted(shards, key=lambda shard: shard.number)
    holding([shard.spare_lock for shard in in_order], lambda: _make_held(in_order))


def _make_held(shards: Sequence[Shard]) -> None:
    wanted = sizes_of_next(shards)
    if wanted:
        sizes = tuple((shard.number, size) for shard, size in wanted.items())
        superblock = shards[0].volume.publish(TakeNext(sizes), optional=True)
        _make_ready({shard: space.taken_by(superblock, shard.number) for shard in wanted})


def sizes_of_next(shards: Iterable[Shard]) -> dict[Shard, int]:
    """For each of some shards that can have a next journal and has none ready its best size [bytes].

    The caller holds their spare locks.
    """
    return {
        shard: _best_size(shard)
        for shard in shards
        if shard.spare is None and shard.store.has_room_for_journal()
    }


def make_ready(extents: Mapping[Shard, Extent]) -> None:
    """Make journals ready that some shards have taken; all are given back where that fails.

    So is that of a shard which has got another one meanwhile.
    """
    locks = [shard.spare_lock for shard in sorted(extents, key=lambda shard: shard.number)]
    holding(locks, lambda: _make_ready_or_give_back(extents))


def _make_ready_or_give_back(extents: Mapping[Shard, Extent]) -> None:
    wanting = {shard: extent for shard, extent in extents.items() if shard.spare is None}
    for shard in extents.keys() - wanting:
        give_back(shard, extents[shard])
    if wanting:
        _make_ready(wanting)


def make_spare(shard: Shard, clusters: int = 0, *, reserve: bool = False, kept: bool = False) -> None:
    """Make the next journal ready, with at least `clusters` log clusters.

    As large as :func:`siltstone.shard.sizing.next_size` says; where space is short, smaller, down to the first
    size. DiskFullError, LogStoreFullError where it cannot be.

    :param reserve: it is for deletions, which may take their part of the reserve where there is no other space
    :param kept: it may be of the reserve where there is no other space, as small as it can be
    """
    with shard.spare_lock:
        if shard.spare is not None and shard.spare.clusters >= clusters:
            return
        if not shard.store.has_room_for_journal():
            raise LogStoreFullError(
                f"shard {shard.number} has as many journals as an index can number", limit=1024
            )
        extent = _take_next(shard, clusters + SLOT_CLUSTERS, reserve=reserve, kept=kept)
        small = shard.spare
        _make_ready({shard: extent})
        # Not before there is another: what is on its way counts on it.
        if small is not None:
            _drop({shard: small.extent})


def _best_size(shard: Shard) -> int:
    least = space.first_size(shard.volume.superblock.erase_block)
    if shard.journal is None:
        return least
    return max(least, next_size(shard.volume.superblock, shard.store, shard.journal, shard.closing))


def _take_next(shard: Shard, clusters: int, *, reserve: bool, kept: bool) -> Extent:
    """Take an extent as an empty journal, durable; where space is short down to the first size.

    :param clusters: it has so many at least
    """
    volume = shard.volume
    least = max(space.first_size(volume.superblock.erase_block), clusters * CLUSTER_SIZE)
    size = max(_best_size(shard), least)
    while True:
        try:
            superblock = volume.publish(TakeNext(((shard.number, size),)), optional=True)
        except DiskFullError:
            if volume.poisoned:
                raise
            if size == least:
                room = space.room_for_deletions(volume.superblock, shard.number)
                if reserve and room >= clusters * CLUSTER_SIZE:
                    size = room
                elif not kept or not any(
                    each.length >= least for each in reserves_of(volume.superblock, shard.number)
                ):
                    raise
                superblock = volume.publish(TakeEmpty(shard.number, size, kept=True))
                shard.reserve = space.taken_by(superblock, shard.number)
                return shard.reserve
            size = max(size // 2, least)
        else:
            return space.taken_by(superblock, shard.number)


def _make_ready(extents: Mapping[Shard, Extent]) -> None:
    """Write the slots of empty journals, flush them, and let them be the spares; give them back where that fails."""
    try:
        spares = {shard: shard.new_journal(extent) for shard, extent in extents.items()}
        for spare in spares.values():
            spare.prepare()
        next(iter(extents)).volume.flush()
    except BaseException:
        _drop(extents)
        raise
    for shard, spare in spares.items():
        shard.spare = spare


def _drop(extents: Mapping[Shard, Extent]) -> None:
    """Give back spares that are too small for the batch that comes, or could not be made ready."""
    for shard, extent in extents.items():
        shard.store.remove(extent)
    for shard, extent in extents.items():
        give_back(shard, extent)
