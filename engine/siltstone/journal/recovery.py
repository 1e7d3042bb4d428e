"""Finds where the log of an active journal ends: the steps 1 to 6 of docs/format.md, "Recovery". Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import DamageError, MediumError
from siltstone.format.constants import NO_BOUNDARY, SLOT_CLUSTERS, UNFLUSHED_CLUSTERS_MAX
from siltstone.format.kernels import split_entries
from siltstone.format.seal import End, Position, parse_seal, seals_of
from siltstone.journal.log_reader import CHUNK_CLUSTERS, LogReader, TailCopy, valid_flags

if TYPE_CHECKING:
    from siltstone.format.superblock import Extent
    from siltstone.volume.backend import Backend


@dataclass(frozen=True, slots=True)
class JournalRecovery:
    """What recovery found in one journal: where its contents end, and what was cut behind that.

    :param journal: extent id
    :param shard: its shard
    :param end: the last batch boundary; everything before it is there
    :param durable: up to here a flush is known to have returned
    :param cut_clusters: clusters holding entries behind the end
    :param cut_bytes: bytes of entries behind the end
    :param cut_entries: entries behind the end
    :param reason: why something was cut, or "" where nothing was
    """

    journal: int
    shard: int
    end: End
    durable: Position
    cut_clusters: int = 0
    cut_bytes: int = 0
    cut_entries: int = 0
    reason: str = ""


def recover(
    backend: Backend, uuid: bytes, extent: Extent, *, clean: bool, unreadable_is_torn: bool = False
) -> JournalRecovery:
    """Where an active journal ends.

    :param clean: whether the superblock says that the volume was closed cleanly: then it must end at `extent.end`
    :param unreadable_is_torn: take a cluster that cannot be read, at or beyond what is known to be durable,
        for a torn one

    Raises DamageError where durable entries are not there, MediumError where the medium cannot be read.
    """
    reader = LogReader(backend, uuid, extent, fresh=True)
    slots = _slots(reader, unreadable_is_torn)
    if not slots:
        raise DamageError(
            f"{backend.url}: journal {extent.id}: both tail slots at byte {extent.offset} of the volume are damaged",
            journal=extent.id,
            cluster=None,
            offset=extent.offset,
        )
    durable = _known_durable(slots, extent)
    # What was closed cleanly was flushed: up to its end the replay checks it, from there on nothing may be.
    known = extent.end if clean else None
    count, unreadable = _count_log(reader, known, unreadable_is_torn)
    if not clean:
        # `clean` was cleared, durably, before anything was written behind `end`: where it stands, nothing was.
        durable = max(durable, _durable_behind(reader, count, unreadable_is_torn))
    tails = [copy for copy in slots if copy.seal.index == count]
    tail = max(tails, key=lambda copy: copy.age) if tails else None
    found = tail.position if tail else Position(count, 0)
    if unreadable is not None and found < durable:
        raise unreadable
    if found < durable:
        # The cluster that is missing: the next of the log, or the tail that only a slot can hold.
        raise reader.damage(count, slot=_slot_missing(slots, count, durable, extent.end))
    if clean and (extent.end is None or found != extent.end.position):
        raise DamageError(
            f"{backend.url}: journal {extent.id} was closed cleanly at {extent.end and tuple(extent.end.position)},"
            f" but ends at {tuple(found)}",
            journal=extent.id,
            cluster=found.cluster,
            offset=reader.offset_of(found.cluster),
        )
    end = _last_boundary(reader, count, tail)
    # Where both name one place, the slot found here is known to be whole, that of the superblock is not.
    if extent.end is not None and end.position < extent.end.position:
        end = extent.end
    return _report(reader, end, durable, found, tail, torn=any(copy.seal.index > count for copy in slots))


def _slots(reader: LogReader, unreadable_is_torn: bool) -> list[TailCopy]:
    try:
        return reader.slots()
    except MediumError:
        # One by one: the error names the one that cannot be read, or the other is heard.
        copies = (_slot(reader, number, unreadable_is_torn) for number in range(SLOT_CLUSTERS))
        return [copy for copy in copies if copy is not None]


def _slot(reader: LogReader, number: int, unreadable_is_torn: bool) -> TailCopy | None:
    try:
        return reader.slot(number)
    except MediumError:
        if not unreadable_is_torn:
            raise
        return None


def _known_durable(slots: list[TailCopy], extent: Extent) -> Position:
    """Step 2: the greatest position that a flush is known to have covered, as far as slots and superblock tell."""
    positions = [copy.seal.durable for copy in slots]
    if extent.end is not None:
        positions.append(extent.end.position)
    if len(slots) == 1:
        # A slot is written only after the flush of the other's last write: while one is torn, the other is durable.
        positions.append(slots[0].position)
    return max(positions)


def _count_log(
    reader: LogReader, known: End | None, unreadable_is_torn: bool
) -> tuple[int, MediumError | None]:
    """Step 3: how many log clusters from the start are valid, those before a `known` end taken for granted; and the
    read error that ended the count, if one did."""
    stop = reader.clusters - 1  # the last one is only ever a tail
    count = 0 if known is None else known.cluster
    # At an end that is known the log most likely ends.
    step = CHUNK_CLUSTERS if known is None else 1
    while count < stop:
        want = min(step, stop - count)
        step = CHUNK_CLUSTERS
        try:
            data = memoryview(reader.read(count, want))
        except MediumError as error:
            if not unreadable_is_torn:
                raise
            return _count_singly(reader, count, want), error
        valid = reader.key.count_valid(data, count)
        count += valid
        if valid < want:
            break
    return count, None


def _count_singly(reader: LogReader, count: int, want: int) -> int:
    for index in range(count, count + want):
        try:
            data = memoryview(reader.read(index, 1))
        except MediumError:
            return index
        if not reader.key.count_valid(data, index):
            return index
    return count + want


def _durable_behind(reader: LogReader, count: int, unreadable_is_torn: bool) -> Position:
    """Step 3: what valid seals in the clusters behind the log's end say was durable."""
    durable = Position(0, 0)
    stop = min(reader.clusters - 1, count + UNFLUSHED_CLUSTERS_MAX)
    step = CHUNK_CLUSTERS
    while count < stop:
        want = min(step, stop - count)
        try:
            data = memoryview(reader.read(count, want))
        except MediumError:
            if not unreadable_is_torn:
                raise
            step = 1  # from here on cluster by cluster: what can be read is heard
            if want > 1:
                continue
            count += 1
            continue
        seals = seals_of(data)[valid_flags(reader, data)]
        if len(seals):
            pairs = zip(seals["durable_cluster"].tolist(), seals["durable_byte"].tolist(), strict=True)
            durable = max(durable, *(Position(*pair) for pair in pairs))
        count += want
    return durable


def _slot_missing(slots: list[TailCopy], count: int, durable: Position, end: End | None) -> int | None:
    """The slot that should hold the durable tail, where it is the tail that is missing and not a log cluster."""
    if durable.cluster > count:
        return None
    if end is not None and end.position == durable:
        return end.slot
    if len(slots) == 2:
        # Both are whole, so a write was lost: the last one went to the slot that now holds the older copy.
        return min(slots, key=lambda copy: copy.age).slot
    return 1 - slots[0].slot


def _last_boundary(reader: LogReader, count: int, tail: TailCopy | None) -> End:
    """Step 6: the last batch boundary in `count` log clusters and the tail."""
    if tail is not None and tail.seal.boundary is not None:
        return End(count, tail.seal.boundary, tail.slot, tail.seal.sequence)
    stop = count
    while stop > 0:
        first = max(0, stop - CHUNK_CLUSTERS)
        seals = seals_of(reader.read(first, stop - first))
        with_boundary = np.flatnonzero(seals["committed"] != NO_BOUNDARY)
        if len(with_boundary):
            index = int(with_boundary[-1])
            seal = seals[index]
            sequence = int(seal["sequence_high"]) << 32 | int(seal["sequence_low"])
            return End(first + index, int(seal["committed"]), None, sequence)
        stop = first
    return End(0, 0, None, 0)


def _report(
    reader: LogReader, end: End, durable: Position, found: Position, tail: TailCopy | None, *, torn: bool
) -> JournalRecovery:
    """Count what lies behind the end, cluster by cluster."""
    clusters = size = entries = 0
    for index in range(end.cluster, found.cluster + (tail is not None)):
        cluster = (
            tail.cluster if tail is not None and index == found.cluster else bytes(reader.read(index, 1))
        )
        body = cluster[end.byte if index == end.cluster else 0 : parse_seal(cluster).used]
        if body:
            clusters += 1
            size += len(body)
            entries += split_entries(body, np.empty(len(body) // 2, np.uint32))
    reason = "an unfinished batch" if size else ""
    if torn:
        reason = "; ".join(filter(None, (reason, "a torn tail whose log clusters never reached the medium")))
    return JournalRecovery(
        reader.extent.id, reader.extent.shard, end, durable, clusters, size, entries, reason
    )
