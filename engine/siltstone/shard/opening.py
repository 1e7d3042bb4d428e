"""Opens the shards of a volume: recovers each active journal, makes way for new writes, replays the rest.

Steps 1 to 7 of docs/format.md, "Recovery". All shards to be opened go through 1 to 6 before step 7 of any;
nothing is written into a journal that is recovered, so an opening can be cut off and repeated.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import DiskFullError
from siltstone.format.constants import BODY_SIZE, CLUSTER_SIZE
from siltstone.format.seal import End, seals_of
from siltstone.format.superblock import ACTIVE, CLOSED, EMPTY, KIND_JOURNAL, Extent, Superblock
from siltstone.index.layout import JOURNALS_MAX
from siltstone.journal.log_reader import LogReader
from siltstone.journal.recovery import JournalRecovery, recover
from siltstone.journal.sealed import SealedJournal
from siltstone.log_store.log_store import LogStore
from siltstone.log_store.memory import IndexSize
from siltstone.shard import space
from siltstone.shard.shard import Shard
from siltstone.volume import allocator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from siltstone.index.types import KeyTypes
    from siltstone.log_store.log_store import Others
    from siltstone.volume.volume import Volume


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is: bytes of journals verified, of how many, and entries in them."""

    bytes_done: int
    bytes_total: int
    records: int


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
    """

    types: KeyTypes
    key_entry_bytes: int
    index_memory: int
    unreadable_is_torn: bool = False
    threads: int = 2
    progress: Callable[[ReplayProgress], None] | None = None
    others: Callable[[int], Others | None] = field(default=lambda _shard: None)


@dataclass(slots=True)
class _Plan:
    """What becomes of one shard at an opening."""

    number: int
    store: LogStore
    recovered: JournalRecovery | None = None  # of its active journal, if it has one
    resume: bool = False  # the active journal goes on at its clean end
    fresh: SealedJournal | None = None  # takes the writes from now on
    copied: bool = False  # the fresh journal holds all that the recovered one did


def open_shards(
    volume: Volume, numbers: Sequence[int], options: OpenOptions, *, clean: bool
) -> tuple[list[Shard], list[JournalRecovery]]:
    """Recover, make way, replay: the shards, ready to be written, and what recovery found.

    `clean` is what the superblock said before this opening raised the epoch, which the caller has done.
    """
    plans, recoveries = _recover_all(volume, numbers, options, clean=clean)
    for plan in plans:
        plan.resume = clean and plan.recovered is not None
    _make_way(volume, plans)
    return _replay_all(volume, plans, options), recoveries


def open_shards_read_only(
    volume: Volume, numbers: Sequence[int], options: OpenOptions
) -> tuple[list[LogStore], list[JournalRecovery]]:
    """Recover and replay without a write: the log stores as recovery finds them."""
    plans, recoveries = _recover_all(volume, numbers, options, clean=volume.superblock.clean)
    ends = {found.journal: found.end for found in recoveries}
    meter = _Meter(volume.superblock, options)

    def replay(plan: _Plan) -> LogStore:
        for extent in volume.superblock.journals(plan.number):
            end = ends.get(extent.id) or extent.end
            assert end is not None
            plan.store.add(extent)
            plan.store.replay(extent, end, progress=meter.add, others=options.others(plan.number))
        return plan.store

    with ThreadPoolExecutor(options.threads) as pool:
        return list(pool.map(replay, plans)), recoveries


def _recover_all(
    volume: Volume, numbers: Sequence[int], options: OpenOptions, *, clean: bool
) -> tuple[list[_Plan], list[JournalRecovery]]:
    superblock = volume.superblock

    def one(number: int) -> _Plan:
        held = superblock.journals(number)
        size = IndexSize.of(
            options.index_memory,
            superblock.shards,
            sum(extent.length for extent in held) // options.key_entry_bytes,
        )
        plan = _Plan(number, LogStore(volume.backend, superblock.uuid, options.types, size))
        for extent in held:
            if extent.state == ACTIVE:
                plan.recovered = recover(
                    volume.backend,
                    superblock.uuid,
                    extent,
                    clean=clean,
                    unreadable_is_torn=options.unreadable_is_torn,
                )
        return plan

    with ThreadPoolExecutor(options.threads) as pool:
        plans = list(pool.map(one, numbers))
    return plans, [plan.recovered for plan in plans if plan.recovered is not None]


# ---- step 7


def _make_way(volume: Volume, plans: list[_Plan]) -> None:
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
        volume.publish(lambda superblock: _settle(superblock, plans))
        _restore_reserves(volume, plans)


def _take_fresh(volume: Volume, plans: list[_Plan]) -> None:
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

    def change(superblock: Superblock, numbers: list[int], *, kept: bool) -> Superblock:
        for number in numbers:
            extent = allocator.reserve_of(superblock, number) if kept else None
            if extent is None:
                superblock, extent = allocator.take(superblock, space.first_size(superblock.erase_block))
            superblock, chosen[number] = space.as_empty(superblock, extent, number)
            if not kept:
                superblock = space.with_reserve(superblock, number)
        return superblock

    if wanting:
        new = not volume.superblock.journals()
        try:
            # A store that holds nothing yet gets its journals and its reserves in one go.
            volume.publish(lambda superblock: change(superblock, wanting, kept=not new), optional=not new)
        except DiskFullError:
            if new or volume.poisoned:
                raise
            _take_singly(volume, wanting, chosen, change)
    for plan in plans:
        if plan.number in chosen:
            extent = chosen[plan.number]
            plan.fresh = SealedJournal(plan.store.add(extent), volume.superblock.uuid, extent, volume.flush)


def _take_singly(
    volume: Volume, wanting: list[int], chosen: dict[int, Extent], change: Callable[..., Superblock]
) -> None:
    """Space is short: shard by shard, so that each that can have a fresh journal gets one."""
    for number in wanting:
        chosen.pop(number, None)
    for number in wanting:
        try:
            volume.publish(partial(change, numbers=[number], kept=True), optional=True)
        except DiskFullError:
            chosen.pop(number, None)
            if volume.poisoned:
                raise


def _copy_small(volume: Volume, plan: _Plan) -> None:
    """Copy what was recovered into the fresh journal where it fills at most half of it, so that a store that
    crashes in a loop does not eat its space."""
    if plan.fresh is None or plan.recovered is None or plan.recovered.end.position == (0, 0):
        return
    end = plan.recovered.end
    if end.cluster * BODY_SIZE + end.byte > plan.fresh.clusters * BODY_SIZE // 2:
        return
    reader = LogReader(volume.backend, volume.superblock.uuid, volume.extent(plan.recovered.journal))
    for _first, data in reader.chunks(end.cluster):
        plan.fresh.append_stream(bodies(data, BODY_SIZE))
    last, _slot = reader.last_cluster(end)
    if end.byte:
        plan.fresh.append_stream(np.frombuffer(last[: end.byte], np.uint8))
    plan.copied = plan.fresh.begin_flush()


def bodies(clusters: memoryview, last_used: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The entries of some verified clusters, packed; of the last cluster at most `last_used` bytes."""
    used = seals_of(clusters)["used"].tolist()
    used[-1] = min(used[-1], last_used)
    pieces = [clusters[number * CLUSTER_SIZE :][:size] for number, size in enumerate(used)]
    return np.frombuffer(b"".join(pieces), np.uint8)


def _settle(superblock: Superblock, plans: list[_Plan]) -> Superblock:
    """The superblock after step 7: recovered journals closed, freed or recycled, fresh ones active."""
    for plan in plans:
        if plan.resume:
            continue
        found = plan.recovered
        if plan.fresh is not None:
            extent = superblock.extent(plan.fresh.extent.id)
            order = space.next_order(superblock, plan.number)
            superblock = superblock.with_extents(replace(extent, state=ACTIVE, order=order))
        if found is None:
            continue
        if found.end.position == (0, 0) or plan.copied:
            superblock = _free(superblock, found.journal, plan.number)
        else:
            extent = superblock.extent(found.journal)
            superblock = superblock.with_extents(replace(extent, state=CLOSED, end=found.end))
    return superblock


def _free(superblock: Superblock, number: int, shard: int) -> Superblock:
    """Give a journal's extent back, as the shard's reserve where it has none and the size is right."""
    extent = superblock.extent(number)
    size = space.first_size(superblock.erase_block)
    if allocator.reserve_of(superblock, shard) is None and extent.length == size:
        return allocator.reserve(superblock, number, shard)
    return allocator.give(superblock, number)


def _restore_reserves(volume: Volume, plans: list[_Plan]) -> None:
    """Give each shard that used its reserve another one, if there is space."""
    for plan in plans:
        if allocator.reserve_of(volume.superblock, plan.number) is None:
            try:
                volume.publish(partial(space.with_reserve, shard=plan.number), optional=True)
            except DiskFullError:
                if volume.poisoned:
                    raise


# ---- replay


class _Meter:
    """Adds up what all shards have replayed and tells the caller."""

    def __init__(self, superblock: Superblock, options: OpenOptions) -> None:
        self._callback = options.progress
        self._lock = threading.Lock()
        self._total = sum(
            (extent.end.cluster + 1) * CLUSTER_SIZE if extent.end else extent.length
            for extent in superblock.journals()
        )
        self._bytes = self._records = 0

    def add(self, size: int, records: int) -> None:
        """`size` bytes more were read, with `records` entries in them."""
        if self._callback is None:
            return
        with self._lock:
            self._bytes += size
            self._records += records
            self._callback(ReplayProgress(min(self._bytes, self._total), self._total, self._records))


def _replay_all(volume: Volume, plans: list[_Plan], options: OpenOptions) -> list[Shard]:
    superblock = volume.superblock
    meter = _Meter(superblock, options)

    def one(plan: _Plan) -> Shard:
        shard = Shard(plan.number, volume, plan.store, plan.fresh)
        for extent in superblock.journals(plan.number):
            fresh = plan.fresh is not None and extent.id == plan.fresh.extent.id
            end = plan.fresh.end if fresh and plan.fresh is not None else extent.end
            if plan.resume and extent.state == ACTIVE and plan.recovered is not None:
                end = plan.recovered.end
            assert end is not None
            if not fresh:
                plan.store.add(extent)
            tail = plan.store.replay(extent, end, progress=meter.add, others=options.others(plan.number))
            if extent.state == ACTIVE and not fresh:
                shard.journal = _resumed(volume, plan.store, extent, end, tail)
            if extent.state == ACTIVE and shard.journal is not None:
                plan.store.show_tail(shard.journal, 0)
        shard.spare = _spare(volume, plan)
        return shard

    with ThreadPoolExecutor(options.threads) as pool:
        shards = list(pool.map(one, plans))
    if any(shard.spare for shard in shards):
        volume.flush()
    return shards


def _resumed(volume: Volume, store: LogStore, extent: Extent, end: End, tail: bytes) -> SealedJournal:
    target = store.target(extent)
    return SealedJournal(target, volume.superblock.uuid, extent, volume.flush, end=end, tail=tail)


def _spare(volume: Volume, plan: _Plan) -> SealedJournal | None:
    """An empty journal that an earlier run made ready and never used; its slots are written anew, not flushed."""
    if not plan.store.has_room_for_journal():
        return None
    for extent in volume.superblock.extents:
        if extent.shard == plan.number and extent.kind == KIND_JOURNAL and extent.state == EMPTY:
            spare = SealedJournal(plan.store.add(extent), volume.superblock.uuid, extent, volume.flush)
            spare.prepare()
            return spare
    return None
