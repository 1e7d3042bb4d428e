"""Reads and checks everything that a volume holds; writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siltstone.core.media import open_backend
from siltstone.errors import DamageError, MediumError, SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE, TYPE_DELETE
from siltstone.format.superblock import ACTIVE, NO_PART
from siltstone.hash_store.view import Counts
from siltstone.index.types import KeyTypes
from siltstone.journal.blocks import EntryBlock, block_of
from siltstone.journal.log_reader import CHUNK_CLUSTERS, LogReader
from siltstone.journal.recovery import recover
from siltstone.log_store.checkpoint import fault_of
from siltstone.log_store.older_views import OlderViews
from siltstone.shard.replaying import ReplayProgress
from siltstone.volume import allocator
from siltstone.volume.slots import read_slot
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from siltstone.core.options import StoreOptions
    from siltstone.format.superblock import Extent
    from siltstone.plugin.host import PluginHost
    from siltstone.volume.backend import Backend


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written: where, as far as it has a place."""

    journal: int | None
    cluster: int | None
    offset: int | None
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :func:`verify_volume` read, and what it found wrong. `notes` are no damage: a torn end, say."""

    url: str
    ok: bool
    journals: int
    hash_stores: int
    clusters: int
    entries: int
    bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    url: str
    bytes_total: int
    progress: Callable[[ReplayProgress], None] | None
    journals: int = 0
    hash_stores: int = 0
    clusters: int = 0
    entries: int = 0
    bytes_read: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, clusters: int, entries: int) -> None:
        self.clusters += clusters
        self.entries += entries
        self.bytes_read += clusters * CLUSTER_SIZE
        if self.progress is not None:
            self.progress(
                ReplayProgress(min(self.bytes_read, self.bytes_total), self.bytes_total, self.entries)
            )

    def problem(self, error: SiltstoneError) -> None:
        facts = error.fields
        self.problems.append(
            Problem(facts.get("journal"), facts.get("cluster"), facts.get("offset"), str(error))
        )


def verify_volume(
    host: PluginHost, options: StoreOptions, progress: Callable[[ReplayProgress], None] | None = None
) -> VerifyReport:
    """Read both superblock slots, every journal up to its end, every hash store and checkpoint, each cluster checked.

    The volume is locked as for reading. Damage goes into the report; what cannot be opened at all raises.
    """
    backend = open_backend(host, options, create=False)
    try:
        volume = Volume.open(backend, ports=options.ports)
        journals = volume.superblock.journals()
        hash_stores = volume.superblock.hash_stores()
        total = sum(map(_length, (*journals, *hash_stores)))
        tally = _Tally(backend.url, total, progress)
        for number in (0, 1):
            slot, _version = read_slot(backend, number)
            if slot is None:
                tally.problems.append(
                    Problem(None, None, None, f"superblock slot {number} is damaged; the other one is whole")
                )
            elif slot.sequence != volume.superblock.sequence:
                tally.notes.append(f"superblock slot {number} is older: its last write was cut off")
        for extent in journals:
            tally.journals += 1
            try:
                _verify_journal(backend, volume, extent, tally)
            except (DamageError, MediumError) as error:
                tally.problem(error)
        tally.hash_stores = volume.superblock.hash_store_count
        for extent in hash_stores:
            try:
                _verify_hash_store(host, volume, extent, tally)
            except (DamageError, MediumError) as error:
                tally.problem(error)
        for shard in range(volume.superblock.shards):
            checkpoint = allocator.checkpoint_of(volume.superblock, shard)
            fault = None if checkpoint is None else fault_of(backend, volume.superblock.uuid, checkpoint)
            if checkpoint is not None and fault is not None:
                tally.notes.append(
                    f"checkpoint {checkpoint.id} of shard {shard}: {fault}; nothing is lost, the next opening replays"
                )
    finally:
        backend.close()
    return VerifyReport(
        url=backend.url,
        ok=not tally.problems,
        journals=tally.journals,
        hash_stores=tally.hash_stores,
        clusters=tally.clusters,
        entries=tally.entries,
        bytes=tally.bytes_read,
        problems=tuple(tally.problems),
        notes=tuple(tally.notes),
    )


def _length(extent: Extent) -> int:
    return extent.length if extent.end is None else (extent.end.cluster + 1) * CLUSTER_SIZE


def _verify_journal(backend: Backend, volume: Volume, extent: Extent, tally: _Tally) -> None:
    uuid = volume.superblock.uuid
    end = extent.end
    if extent.state == ACTIVE:
        found = recover(backend, uuid, extent, clean=volume.superblock.clean)
        end = found.end
        if found.reason:
            tally.notes.append(
                f"journal {extent.id}: {found.cut_entries} entries ({found.cut_bytes} bytes) behind the last batch:"
                f" {found.reason}"
            )
    assert end is not None
    reader = LogReader(backend, uuid, extent)
    known = np.array([*volume.superblock.entry_types, TYPE_DELETE], np.uint8)
    for first, data in reader.chunks(end.cluster):
        _take(block_of(data, CLUSTER_SIZE, reader.offset_of(first)), extent, known, tally)
    last, slot = reader.last_cluster(end)
    if end.byte:
        at = reader.offset_of(end.cluster) if slot is None else extent.offset + slot * CLUSTER_SIZE
        _take(block_of(last, end.byte, at), extent, known, tally)


def _verify_hash_store(host: PluginHost, volume: Volume, extent: Extent, tally: _Tally) -> None:
    keys = {number: kind.key for number, kind in host.entry_types.items() if kind.key is not None}
    types = KeyTypes(keys, volume.superblock.entry_types)
    view = OlderViews(volume.backend, volume.superblock.uuid, types).view(extent)
    part = extent.part or NO_PART
    found = Counts(0, 0, 0, 0)
    for first in range(0, view.clusters, CHUNK_CLUSTERS):
        more = view.verify(first, CHUNK_CLUSTERS, part.first)
        found = Counts(*(one + other for one, other in zip(found, more, strict=True)))
        tally.take(min(CHUNK_CLUSTERS, view.clusters - first), 0)
    tally.take(0, found.part_entries)
    said = Counts(view.records, view.tombstones, part.entries, part.tombstones)
    if found != said:
        tally.problems.append(
            Problem(
                extent.id,
                None,
                extent.offset,
                f"{tally.url}: hash store {extent.id}, at byte {extent.offset} of the volume: it has {found.entries}"
                f" entries with {found.tombstones} tombstones, {found.part_entries} with {found.part_tombstones}"
                f" of them count; header and superblock say {said.entries} with {said.tombstones},"
                f" {said.part_entries} with {said.part_tombstones}",
            )
        )


def _take(block: EntryBlock, extent: Extent, known: NDArray[np.uint8], tally: _Tally) -> None:
    tally.take(len(block.data) // CLUSTER_SIZE, len(block))
    strange = np.flatnonzero(~np.isin(block.types, known))
    if len(strange):
        kind, offset = int(block.types[strange[0]]), int(block.offsets[strange[0]])
        tally.problems.append(
            Problem(
                extent.id,
                None,
                offset,
                f"{tally.url}: journal {extent.id}, at byte {offset} of the volume: an entry of type {kind:#04x},"
                " which the superblock does not name",
            )
        )
