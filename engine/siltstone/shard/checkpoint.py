"""Checkpoints of shards: when they are written and how, and which one an opening may believe."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from siltstone.errors import DiskFullError, MediumError, SiltstoneError
from siltstone.format.checkpoint import digest_of
from siltstone.format.seal import End, Position
from siltstone.format.superblock import ACTIVE
from siltstone.index import segments
from siltstone.log_store.checkpoint import Covered, Restoring, Snapshot, read_header
from siltstone.shard.checkpoint_changes import GiveCheckpoints, PublishCheckpoints, TakeCheckpoints
from siltstone.shard.rolling import complete, flush_held
from siltstone.shard.space import taken_by
from siltstone.threads import map_in_threads
from siltstone.volume import allocator

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from siltstone.format.checkpoint import CheckpointHeader
    from siltstone.format.superblock import Extent
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.log_store.log_store import LogStore
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)

#: entries that came since the last checkpoint, after which the next one is written in the background [bytes]
CHECKPOINT_BYTES_MIN: Final = 8 << 20
CHECKPOINT_BYTES_MAX: Final = 64 << 20
#: the same, for each record: about half of its entry, so that each checkpoint covers twice what the one before did
CHECKPOINT_BYTES_A_RECORD: Final = 25
#: bytes of indexes that are copied for checkpoints at once
CHECKPOINT_MEMORY: Final = 32 << 20
#: a shard with fewer records is replayed about as fast as a checkpoint is read
CHECKPOINT_RECORDS_MIN = 4_000


# ---- writing


def due_checkpoints(shards: Sequence[Shard]) -> list[list[Shard]]:
    """Which of some shards should have a checkpoint now, since much came since their last; together those that may.

    A group is written with as few flushes as one shard is, but its copies of indexes are in memory at once.
    """
    groups: list[list[Shard]] = []
    if not any(_is_due(shard, 1.0) for shard in shards):
        return groups
    left = 0
    # They fill alike: what is due for one of them is due for the others a moment later.
    for shard in (shard for shard in shards if _is_due(shard, 7 / 8)):
        size = shard.store.index.bytes
        if size > left:
            groups.append([])
            left = CHECKPOINT_MEMORY
        groups[-1].append(shard)
        left -= size
    return groups


def _is_due(shard: Shard, part: float) -> bool:
    store = shard.store
    enough = max(CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_A_RECORD * store.records)
    journal = shard.journal
    if shard.broken is not None or (journal is not None and journal.poison is not None):
        return False
    return (
        store.uncovered >= part * min(enough, CHECKPOINT_BYTES_MAX)
        and store.records >= CHECKPOINT_RECORDS_MIN
    )


def snapshot_of(shard: Shard) -> Snapshot | None:
    """The index of a shard, all of whose entries are durable; nothing may change it meanwhile.

    None where it is not worth a checkpoint, or is as the last one has it.
    """
    store, volume = shard.store, shard.volume
    if store.records < CHECKPOINT_RECORDS_MIN or not store.can_restore:
        return None
    journals: list[Covered] = []
    for extent in volume.superblock.journals(shard.number):
        end = extent.end
        if extent.state == ACTIVE:
            journal = shard.journal
            if journal is None or journal.extent.id != extent.id:
                return None
            end = journal.end
        # One without entries may be recycled by the next opening, and is not missed.
        if end is not None and end.position > (0, 0):
            journals.append(Covered(extent, end))
    if not journals or _mark(journals) == store.checkpointed:
        return None
    return Snapshot.take(store, shard.number, journals)


def _mark(journals: Sequence[Covered]) -> tuple[object, ...]:
    """What tells two states of a shard's journals apart."""
    return *((one.extent.id, one.extent.generation) for one in journals), journals[-1].end.position


def _mark_of(header: CheckpointHeader) -> tuple[object, ...]:
    return *((one.extent, one.generation) for one in header.journals), header.covered


def write_checkpoints(
    volume: ShardVolume, shards: Sequence[Shard], snapshot: Callable[[Shard], Snapshot | None]
) -> None:
    """Write a checkpoint of each of some shards, and let it take the place of the last one; durable.

    Where there is no space there are none. A write that fails loses them, a flush that fails poisons the volume.
    """
    found = {shard: taken for shard in shards if (taken := snapshot(shard)) is not None}
    if found and not _write_all(volume, found) and len(found) > 1:
        # Where there is no space for all of them there may be some for one.
        for shard, taken in found.items():
            _write_all(volume, {shard: taken})


def _write_all(volume: ShardVolume, found: Mapping[Shard, Snapshot]) -> bool:
    """Write these, or none of them; False where there is no space for all."""
    wanted = tuple((shard.number, len(taken.data)) for shard, taken in found.items())
    try:
        superblock = volume.publish(TakeCheckpoints(wanted), optional=True)
    except DiskFullError as error:
        _log.debug("no space for checkpoints: %s", error)
        return False
    extents = {shard: taken_by(superblock, shard.number, checkpoint=True) for shard in found}
    numbers = tuple((shard.number, extent.id) for shard, extent in extents.items())

    def write(shard: Shard) -> None:
        found[shard].write(volume.backend, superblock.uuid, extents[shard])

    try:
        map_in_threads(write, list(found), os.cpu_count() or 1)
        # Only what is durable may be named as a checkpoint.
        volume.flush()
    except BaseException:
        if volume.poisoned is None:
            volume.publish(GiveCheckpoints(numbers), optional=True)
        raise
    volume.publish(PublishCheckpoints(numbers))
    for shard, taken in found.items():
        shard.store.checkpointed = _mark_of(taken.header)
    return True


# ---- reading


class Covering(NamedTuple):
    """A checkpoint that an opening may believe.

    :param extent: where it is
    :param header: what it says
    :param journals: what it covers, each with the end up to which it does
    """

    extent: Extent
    header: CheckpointHeader
    journals: tuple[Covered, ...]

    def position_in(self, extent: Extent) -> Position:
        """Up to where a journal is covered; (0, 0) where it is not."""
        for one in self.journals:
            if one.extent.id == extent.id:
                return one.end.position
        return Position(0, 0)

    def end_in(self, extent: Extent) -> End:
        """The end up to which a covered journal is."""
        return next(one.end for one in self.journals if one.extent.id == extent.id)

    def entries_in(self, extent: Extent) -> int:
        """Entries of a journal that are covered."""
        return next((one.entries for one in self.header.journals if one.extent == extent.id), 0)

    def keyless(self, extent: Extent) -> bool:
        """Whether the covered part of a journal has entries without a key."""
        return any(one.extent == extent.id and one.keyless for one in self.header.journals)

    def begin(self, store: LogStore) -> None:
        """Let the index of the shard wait for what the checkpoint has of it."""
        Restoring(store, self.extent, self.header, self.journals).begin(store)
        store.checkpointed = _mark_of(self.header)


def find_checkpoint(
    volume: ShardVolume, shard: int, store: LogStore, recovered: JournalRecovery | None
) -> Covering | None:
    """The checkpoint of a shard if it is whole and fits what is there; its journals have been added to the store then.

    None means that everything is replayed: it costs time, nothing else.
    """
    extent = allocator.checkpoint_of(volume.superblock, shard)
    if extent is None or not store.can_restore:
        return None
    try:
        header = read_header(volume.backend, volume.superblock.uuid, extent)
        journals = _fitting(volume, shard, store, header, recovered)
    except (ValueError, MediumError) as error:
        _log.info("%s: checkpoint %d of shard %d: %s", volume.backend.url, extent.id, shard, error)
        return None
    for one, listed in zip(journals, header.journals, strict=True):
        store.add(one.extent, listed.number, unread=True)
    return Covering(extent, header, journals)


def _fitting(
    volume: ShardVolume,
    shard: int,
    store: LogStore,
    header: CheckpointHeader,
    recovered: JournalRecovery | None,
) -> tuple[Covered, ...]:
    """The journals that a checkpoint covers; ValueError where it is of another store or time."""
    size, superblock = store.size, volume.superblock
    if header.shard != shard or header.layout != segments.LAYOUT:
        raise ValueError(f"it is of shard {header.shard}, in layout {header.layout}")
    if len(header.buckets) != size.segments:
        raise ValueError(f"{len(header.buckets)} segments, not {size.segments}")
    if int(header.buckets.max()) * segments.BUCKET_BYTES > size.window_bytes or not header.buckets.all():
        raise ValueError("a segment does not fit its window")
    if header.older != digest_of([(one.id, one.generation) for one in superblock.hash_stores(shard)]):
        raise ValueError("the hash stores are others by now")
    keys = store.index.types.packed()
    for kind in superblock.entry_types:
        if header.keys[2 * kind : 2 * kind + 2] != keys[2 * kind : 2 * kind + 2]:
            raise ValueError(f"entries of type {kind:#04x} had another key")
    there = superblock.journals(shard)[: len(header.journals)]
    # The generation and not the id alone: an extent that was recycled has the same one.
    if [(one.id, one.generation) for one in there] != [
        (one.extent, one.generation) for one in header.journals
    ]:
        raise ValueError("the journals are others by now")
    ends = [one.end for one in there]
    if recovered is not None and there[-1].id == recovered.journal:
        ends[-1] = recovered.end
    last = ends[-1]
    if last is None or header.covered > last.position or header.covered == (0, 0):
        raise ValueError(f"it covers {tuple(header.covered)} of a journal that ends at {last}")
    if header.covered < last.position:
        # Which copy of that cluster is there by now is not known: it is looked for.
        ends[-1] = End(header.covered.cluster, header.covered.byte, None, 0)
    return tuple(Covered(one, end) for one, end in zip(there, ends, strict=True) if end is not None)


def checkpoint_group(volume: ShardVolume, shards: Sequence[Shard], flush_lock: threading.Lock) -> None:
    """Write checkpoints of shards that others put into; the caller lets nothing be packed meanwhile.

    :param flush_lock: who holds it flushes or rolls; taken for each shard while its index is copied
    """

    uncovered: dict[Shard, int] = {}
    errors: list[SiltstoneError] = []

    def take(shard: Shard) -> Snapshot | None:
        with flush_lock:
            try:
                complete([shard])
                with shard.lock:
                    return take_held(shard)
            except SiltstoneError as error:
                # It keeps the others from theirs only where the medium does.
                errors.append(error)
                return None

    def take_held(shard: Shard) -> Snapshot | None:
        shard.check()
        # Only what is durable may be in it: after a crash the journal must reach as far.
        flush_held(shard)
        # In one go: no entry may come between two segments, so that what is covered is one place in the log.
        taken = snapshot_of(shard)
        if taken is not None:
            uncovered[shard], shard.store.uncovered = shard.store.uncovered, 0
        return taken

    try:
        write_checkpoints(volume, shards, take)
    except BaseException:
        for shard, size in uncovered.items():
            with shard.lock:
                shard.store.uncovered += size
        raise
    if errors:
        raise errors.pop(0)
