"""A store in figures."""

from __future__ import annotations

import uuid as uuids
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from siltstone.format.constants import CLUSTER_SIZE, FORMAT_VERSION, SLOT_CLUSTERS
from siltstone.format.superblock import (
    CLOSED,
    KIND_CHECKPOINT,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    Extent,
    Superblock,
)
from siltstone.volume import allocator

if TYPE_CHECKING:
    from siltstone.core.core import Core
    from siltstone.format.seal import Position
    from siltstone.shard.figures import ShardFigures

#: how often the superblock and the shards are looked at until none was changed between the two looks
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class ExtentInfo:
    """One extent: whose it is, and how far it is filled. Sizes in bytes."""

    id: int
    kind: str
    state: str
    shard: int
    offset: int
    length: int
    used: int
    generation: int


@dataclass(frozen=True, slots=True)
class RecoveryInfo:
    """What the last opening found in a journal that was active."""

    journal: int
    shard: int
    end: tuple[int, int]
    cut_clusters: int
    cut_bytes: int
    cut_entries: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    """One worker process: its shards, how often it was started again, what it uses [bytes, seconds]."""

    number: int
    pid: int | None
    state: str
    shards: str
    restarts: int
    memory: int | None
    cpu: float | None


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store in figures. Sizes in bytes.

    `journal_bytes` counts journals up to their end, their two tail slots included; `dead_entries` what of their entries
    no longer counts, deletions among them, None where another process has the store open; `hash_store_bytes` and
    `checkpoint_bytes` count whole extents; `free_bytes` what lies in free extents; `reserved_bytes` what only
    recovery, packing and deletions may take; `clean` whether the opening before this one was closed cleanly;
    `index_records_max` where the index reaches its budget.
    """

    url: str
    uuid: str
    format_version: int
    created: int
    shards: int
    records: int
    index_bytes: int
    index_records_max: int
    journals: int
    journal_bytes: int
    dead_entries: int | None
    hash_stores: int
    hash_store_bytes: int
    checkpoint_bytes: int
    volume_bytes: int
    free_bytes: int
    reserved_bytes: int
    epoch: int
    sequence: int
    clean: bool
    read_only: bool
    entry_types: tuple[dict[str, Any], ...]
    extents: tuple[ExtentInfo, ...]
    recovery: tuple[RecoveryInfo, ...]
    workers: tuple[WorkerSummary, ...]


def used_bytes(extent: Extent, position: Position | None) -> int:
    """Bytes of a journal up to where it ends: its slots and its log clusters."""
    if extent.kind == KIND_CHECKPOINT:
        return extent.length
    if extent.state == CLOSED and extent.end is not None:
        position = extent.end.position
    if position is None:
        return 0
    return (SLOT_CLUSTERS + position.cluster) * CLUSTER_SIZE


def _at_one_time(core: Core) -> tuple[Superblock, tuple[ShardFigures, ...]]:
    """The superblock, and the figures of the shards as they were with it.

    Where journals are closed faster than they can be looked at, those of a later moment: a journal that was closed in
    between then shows no used space.
    """
    for _try in range(_TRIES):
        superblock = core.volume.superblock
        figures = core.shards.figures()
        if core.volume.superblock.sequence == superblock.sequence:
            break
    return superblock, figures


def describe(core: Core) -> StoreInfo:
    """The figures of an open store."""
    superblock, shards = _at_one_time(core)
    dead = [each.dead for each in shards]
    positions: dict[int, Position] = {
        each.journal: each.position
        for each in shards
        if each.journal is not None and each.position is not None
    }
    extents = tuple(
        ExtentInfo(
            extent.id,
            extent.kind,
            extent.state,
            extent.shard,
            extent.offset,
            extent.length,
            used_bytes(extent, positions.get(extent.id)),
            extent.generation,
        )
        for extent in superblock.extents
    )
    return StoreInfo(
        url=core.volume.backend.url,
        uuid=str(uuids.UUID(bytes=superblock.uuid)),
        format_version=FORMAT_VERSION,
        created=superblock.created,
        shards=superblock.shards,
        records=sum(each.records for each in shards),
        index_bytes=sum(each.index_bytes for each in shards),
        index_records_max=sum(each.records_max for each in shards),
        journals=len(superblock.journals()),
        journal_bytes=sum(extent.used for extent in extents if extent.kind == KIND_JOURNAL),
        dead_entries=None if None in dead else sum(each or 0 for each in dead),
        hash_stores=superblock.hash_store_count,
        hash_store_bytes=sum(extent.length for extent in extents if extent.kind == KIND_HASH_STORE),
        checkpoint_bytes=sum(extent.length for extent in extents if extent.kind == KIND_CHECKPOINT),
        volume_bytes=core.volume.backend.size,
        free_bytes=allocator.free_bytes(superblock),
        reserved_bytes=sum(extent.length for extent in extents if extent.kind == "reserve"),
        epoch=superblock.epoch,
        sequence=superblock.sequence,
        clean=core.was_clean,
        read_only=core.is_read_only,
        entry_types=tuple(
            {"id": number, "name": known.name, "version": known.version, "distribution": known.distribution}
            for number, known in sorted(superblock.entry_types.items())
        ),
        extents=extents,
        recovery=tuple(
            RecoveryInfo(
                found.journal,
                found.shard,
                (found.end.cluster, found.end.byte),
                found.cut_clusters,
                found.cut_bytes,
                found.cut_entries,
                found.reason,
            )
            for found in core.shards.recoveries
        ),
        workers=tuple(
            WorkerSummary(
                worker.number,
                worker.pid,
                worker.state,
                " ".join(map(str, worker.shards)),
                worker.restarts,
                worker.memory_bytes,
                worker.cpu_seconds,
            )
            for worker in core.shards.workers()
        ),
    )
