"""Opens the shards of a volume: recovers each active journal, makes way for new writes, replays the rest.

Steps 1 to 7 of docs/format.md, "Recovery". All shards to be opened go through 1 to 6 before step 7 of any;
nothing is written into a journal that is recovered, so an opening can be cut off and repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from siltstone.errors import DiskFullError
from siltstone.format.constants import BODY_SIZE
from siltstone.format.superblock import (
    ACTIVE,
    EMPTY,
    KIND_JOURNAL,
    Extent,
    Superblock,
)
from siltstone.hash_store.sorting import cluster_entries
from siltstone.index.layout import JOURNALS_MAX
from siltstone.journal.log_reader import LogReader
from siltstone.journal.recovery import JournalRecovery, recover
from siltstone.journal.sealed import SealedJournal
from siltstone.log_store.log_store import LogStore
from siltstone.log_store.memory import IndexSize
from siltstone.shard import space
from siltstone.shard.changes import Give, Reserve, Settle, Settled, TakeFresh
from siltstone.shard.checkpoint import Covering, find_checkpoint
from siltstone.shard.merging import OnFull
from siltstone.shard.replaying import Meter, ReplayProgress, begin_restoring, left_of, replay
from siltstone.shard.shard import Shard
from siltstone.threads import map_in_threads
from siltstone.volume import allocator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from siltstone.format.seal import End
    from siltstone.index.types import KeyTypes
    from siltstone.log_store.log_store import Others
    from siltstone.log_store.mirror import MirrorSpace
    from siltstone.volume.shard_volume import ShardVolume

#: so many bytes of journals are replayed by one thread
_REPLAYED_ALONE: Final = 1 << 20


class IndexPlace(NamedTuple):
    """Where the index of a shard lies, when it is not in memory of this process alone.

    :param size: its shape
    :param memory: shared memory for it, zeroed
    :param mirrors: shared memory for copies of journals, where the medium cannot be mapped
    """

    size: IndexSize
    memory: Buffer
    mirrors: MirrorSpace


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How shards are opened.

    :param types: which entry types have keys
    :param key_entry_bytes: the shortest entry that can bring a key [bytes]
    :param index_memory: budget of all shards' indexes together [bytes]
    :param unreadable_is_torn: see :func:`siltstone.journal.recovery.recover`
    :param threads: shards that are recovered and replayed at the same time
    :param progress: called from time to time, from any thread, one call at a time
    :param others: gets, by shard, the entries of chunks in which some have no key
    :param consumed: ids of the types without a key that somebody wants
    :param on_full: what becomes of old records when there is no room for new ones
    :param place: where the index of a shard lies; None: in memory of this process
    """

    types: KeyTypes
    key_entry_bytes: int
    index_memory: int
    unreadable_is_torn: bool = False
    threads: int = 2
    progress: Callable[[ReplayProgress], None] | None = None
    others: Callable[[int], Others | None] = field(default=lambda _shard: None)
    consumed: frozenset[int] = frozenset()
    on_full: OnFull = field(default_factory=OnFull)
    place: Callable[[int], IndexPlace] | None = None


@dataclass(slots=True)
class _Plan:
    """What becomes of one shard at an opening."""

    number: int
    store: LogStore
    recovered: JournalRecovery | None = None  # of its active journal, if it has one
    covering: Covering | None = None  # a checkpoint that fits what is there
    resume: bool = False  # the active journal goes on at its clean end
    fresh: SealedJournal | None = None  # takes the writes from now on
    copied: bool = False  # the fresh journal holds all that the recovered one did


@dataclass(frozen=True, slots=True)
class Recovered:
    """Shards whose active journals have been recovered, nothing written yet; :func:`serve_shards` goes on from here.

    :param recoveries: what was found in each journal that was active
    """

    plans: tuple[_Plan, ...]
    recoveries: tuple[JournalRecovery, ...]


def recover_shards(
    volume: ShardVolume, numbers: Sequence[int], options: OpenOptions, *, clean: bool
) -> Recovered:
    """Steps 1 to 6 for some shards; writes nothing.

    `clean` is what the superblock said before this opening raised the epoch, which the caller has done. All
    shards that are opened together, in whatever processes, go through this before any goes on to the next step.
    """
    plans, recoveries = _recover_all(volume, numbers, options, clean=clean)
    for plan in plans:
        plan.resume = clean and plan.recovered is not None
    return Recovered(tuple(plans), tuple(recoveries))


def serve_shards(volume: ShardVolume, recovered: Recovered, options: OpenOptions) -> list[Shard]:
    """Step 7 and the replay: the shards, ready to be written."""
    _make_way(volume, recovered.plans)
    return _replay_all(volume, recovered.plans, options)


def open_shards(
    volume: ShardVolume, numbers: Sequence[int], options: OpenOptions, *, clean: bool
) -> tuple[list[Shard], tuple[JournalRecovery, ...]]:
    """Recover, make way, replay: the shards, ready to be written, and what recovery found."""
    recovered = recover_shards(volume, numbers, options, clean=clean)
    return serve_shards(volume, recovered, options), recovered.recoveries


def open_shards_read_only(
    volume: ShardVolume, numbers: Sequence[int], options: OpenOptions, *, bytes_max: int | None = None
) -> tuple[list[LogStore], list[JournalRecovery]]:
    """Recover and replay without a write: the log stores as recovery finds them.

    :param bytes_max: where more than so many bytes of journals must be read for that, none
    """
    plans, recoveries = _recover_all(volume, numbers, options, clean=volume.superblock.clean)
    left = sum(left_of(plan.covering, volume.superblock.journals(plan.number)) for plan in plans)
    if bytes_max is not None and left > bytes_max:
        return [], recoveries
    ends = {found.journal: found.end for found in recoveries}
    meter = Meter(volume.superblock, options.progress)

    def one(plan: _Plan) -> LogStore:
        plan.store.show_hash_stores(volume.superblock.hash_stores(plan.number))
        if plan.covering is not None:
            plan.covering.begin(plan.store)
        for extent in volume.superblock.journals(plan.number):
            end = ends.get(extent.id) or extent.end
            assert end is not None
            if not plan.store.has(extent):
                plan.store.add(extent)
            replay(plan.store, plan.covering, extent, end, meter, options.others(plan.number))
        return plan.store

    return map_in_threads(one, plans, _threads(volume, plans, options)), recoveries


def _recover_all(
    volume: ShardVolume, numbers: Sequence[int], options: OpenOptions, *, clean: bool
) -> tuple[list[_Plan], list[JournalRecovery]]:
    superblock = volume.superblock

    def one(number: int) -> _Plan:
        plan = _Plan(number, _log_store(volume, number, options))
        for extent in superblock.journals(number):
            if extent.state == ACTIVE:
                plan.recovered = recover(
                    volume.backend,
                    superblock.uuid,
                    extent,
                    clean=clean,
                    unreadable_is_torn=options.unreadable_is_torn,
                )
        # Before any other journal gets a number in the index.
        plan.covering = find_checkpoint(volume, number, plan.store, plan.recovered)
        return plan

    plans = map_in_threads(one, numbers, 1 if clean else options.threads)
    return plans, [plan.recovered for plan in plans if plan.recovered is not None]


def _threads(volume: ShardVolume, plans: Sequence[_Plan], options: OpenOptions) -> int:
    """How many threads a replay is for: one where there is so little of it that they would only wait for each other."""
    ends = {plan.recovered.journal: plan.recovered.end for plan in plans if plan.recovered is not None}
    left = 0
    for plan in plans:
        journals = (
            replace(extent, end=ends.get(extent.id, extent.end))
            for extent in volume.superblock.journals(plan.number)
        )
        left += left_of(plan.covering, list(journals))
    return 1 if left <= _REPLAYED_ALONE else options.threads


def index_size(superblock: Superblock, number: int, options: OpenOptions) -> IndexSize:
    """The shape of the index of one shard: for its budget, and at least for what its journals may hold."""
    held = sum(extent.length for extent in superblock.journals(number))
    return IndexSize.of(options.index_memory, superblock.shards, held // options.key_entry_bytes)


def _log_store(volume: ShardVolume, number: int, options: OpenOptions) -> LogStore:
    uuid, types = volume.superblock.uuid, options.types
    if options.place is None:
        return LogStore(volume.backend, uuid, types, index_size(volume.superblock, number, options))
    place = options.place(number)
    return LogStore(volume.backend, uuid, types, place.size, memory=place.memory, mirrors=place.mirrors)


# ---- step 7


def _make_way(volume: ShardVolume, plans: Sequence[_Plan]) -> None:
    """Give each shard a journal to write to: two superblock writes for all shards together, or none."""
    _take_fresh(volume, plans)
    fresh = [plan.fresh for plan in plans if plan.fresh is not None]
    for journal in fresh:
        journal.prepare()
    for plan in plans:
        _copy_small(volume, plan)
    if fresh:
        volume.flush()
    for plan in plans:
        if plan.copied and plan.fresh is not None:
            plan.fresh.end_flush()
    if any(not plan.resume for plan in plans):
        volume.publish(Settle(tuple(_settled(plan) for plan in plans if not plan.resume)))
        _restore_reserves(volume, plans)


def _take_fresh(volume: ShardVolume, plans: Sequence[_Plan]) -> None:
    """An empty journal for each shard that does not go on in its old one: a spare, the reserve, or new space."""
    chosen: dict[int, Extent] = {}
    wanting: list[int] = []
    for plan in plans:
        empties = [
            extent
            for extent in volume.superblock.extents
            if extent.shard == plan.number and extent.kind == KIND_JOURNAL and extent.state == EMPTY
        ]
        # One that has all the journals that an index can number is opened without: reads go on, writes are refused.
        numbered = len(volume.superblock.journals(plan.number)) < JOURNALS_MAX
        if plan.resume or not numbered:
            continue
        if empties:
            chosen[plan.number] = max(empties, key=lambda extent: extent.length)
        else:
            wanting.append(plan.number)

    if wanting:
        new = not volume.superblock.journals()
        try:
            # A store that holds nothing yet gets its journals and its reserves in one go.
            superblock = volume.publish(TakeFresh(tuple(wanting), kept=not new), optional=not new)
            chosen |= {number: space.taken_by(superblock, number) for number in wanting}
        except DiskFullError:
            if new or volume.poisoned:
                raise
            _take_singly(volume, wanting, chosen)
    for plan in plans:
        if plan.number in chosen:
            extent = chosen[plan.number]
            plan.fresh = SealedJournal(plan.store.add(extent), volume.superblock.uuid, extent, volume.flush)


def _take_singly(volume: ShardVolume, wanting: list[int], chosen: dict[int, Extent]) -> None:
    """Space is short: shard by shard, so that each that can have a fresh journal gets one."""
    for number in wanting:
        try:
            superblock = volume.publish(TakeFresh((number,), kept=True), optional=True)
        except DiskFullError:
            if volume.poisoned:
                raise
        else:
            chosen[number] = space.taken_by(superblock, number)


def _copy_small(volume: ShardVolume, plan: _Plan) -> None:
    """Copy what was recovered into the fresh journal where it fills at most half of it, so that a store that
    crashes in a loop does not eat its space."""
    if plan.fresh is None or plan.recovered is None or plan.recovered.end.position == (0, 0):
        return
    end = plan.recovered.end
    if end.cluster * BODY_SIZE + end.byte > plan.fresh.clusters * BODY_SIZE // 2:
        return
    reader = LogReader(volume.backend, volume.superblock.uuid, volume.extent(plan.recovered.journal))
    for _first, data in reader.chunks(end.cluster):
        plan.fresh.append_stream(cluster_entries(data, BODY_SIZE))
    last, _slot = reader.last_cluster(end)
    if end.byte:
        plan.fresh.append_stream(np.frombuffer(last[: end.byte], np.uint8))
    plan.copied = plan.fresh.begin_flush()


def _settled(plan: _Plan) -> Settled:
    """What becomes of the shard's journals: the recovered one closed, freed or recycled, the fresh one active."""
    found = plan.recovered
    return Settled(
        plan.number,
        None if plan.fresh is None else plan.fresh.extent.id,
        None if found is None else found.journal,
        None if found is None else found.end,
        plan.copied or (found is not None and found.end.position == (0, 0)),
    )


def _restore_reserves(volume: ShardVolume, plans: Sequence[_Plan]) -> None:
    """Keep again what each shard needs, if there is space."""
    for plan in plans:
        superblock = volume.superblock
        if allocator.reserved_bytes(superblock, plan.number) < space.reserve_size(superblock, plan.number):
            try:
                volume.publish(Reserve(plan.number), optional=True)
            except DiskFullError:
                if volume.poisoned:
                    raise


# ---- replay


def _replay_all(volume: ShardVolume, plans: Sequence[_Plan], options: OpenOptions) -> list[Shard]:
    superblock = volume.superblock
    meter = Meter(superblock, options.progress)

    def one(plan: _Plan) -> Shard:
        shard = Shard(plan.number, volume, plan.store, plan.fresh)
        # Before the replay: what is deleted in the journals must be remembered where a hash store has it.
        plan.store.show_hash_stores(superblock.hash_stores(plan.number))
        plan.covering = begin_restoring(plan.store, plan.covering, superblock.journals(plan.number))
        for extent in superblock.journals(plan.number):
            fresh = plan.fresh is not None and extent.id == plan.fresh.extent.id
            end = plan.fresh.end if fresh and plan.fresh is not None else extent.end
            if plan.resume and extent.state == ACTIVE and plan.recovered is not None:
                end = plan.recovered.end
            assert end is not None
            if not plan.store.has(extent):
                plan.store.add(extent)
            tail = replay(plan.store, plan.covering, extent, end, meter, options.others(plan.number))
            if extent.state == ACTIVE and not fresh:
                shard.journal = _resumed(volume, plan.store, extent, end, tail)
            if extent.state == ACTIVE and shard.journal is not None:
                plan.store.show_tail(shard.journal, 0)
        if options.place is not None:
            # Readers in other processes cannot bring anything back.
            plan.store.load_rest()
        shard.spare = _spare(volume, plan)
        return shard

    shards = map_in_threads(one, plans, _threads(volume, plans, options))
    if any(shard.spare for shard in shards):
        volume.flush()
    return shards


def _resumed(volume: ShardVolume, store: LogStore, extent: Extent, end: End, tail: bytes) -> SealedJournal:
    target = store.target(extent)
    return SealedJournal(target, volume.superblock.uuid, extent, volume.flush, end=end, tail=tail)


def _spare(volume: ShardVolume, plan: _Plan) -> SealedJournal | None:
    """The largest empty journal that an earlier run left; its slots are written anew, not flushed.

    Other empty ones, which a run that was cut off while it packed or merged may have left, are given back.
    """
    left = [
        extent
        for extent in volume.superblock.extents
        if extent.shard == plan.number and extent.state == EMPTY
    ]
    journals = [extent for extent in left if extent.kind == KIND_JOURNAL]
    chosen = max(journals, key=lambda extent: extent.length, default=None)
    if not plan.store.has_room_for_journal():
        chosen = None
    for extent in left:
        if extent is not chosen:
            volume.publish(Give(plan.number, extent.id))
    if chosen is None:
        return None
    spare = SealedJournal(plan.store.add(chosen), volume.superblock.uuid, chosen, volume.flush)
    spare.prepare()
    return spare
