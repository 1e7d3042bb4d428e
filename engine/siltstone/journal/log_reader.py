"""Reads what one life of a sealed journal left on the medium: slots, log clusters, the last cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import DamageError
from siltstone.format.constants import CLUSTER_SIZE, SLOT_CLUSTERS
from siltstone.format.kernels import is_boundary
from siltstone.format.seal import End, Position, Seal, is_valid, journal_key, parse_seal
from siltstone.journal.sealed import log_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.format.superblock import Extent
    from siltstone.volume.backend import Backend

#: clusters read at once: 4 MiB
CHUNK_CLUSTERS = 1024


@dataclass(frozen=True, slots=True)
class TailCopy:
    """A valid tail slot: which one, its seal, its 4096 bytes."""

    slot: int
    seal: Seal
    cluster: bytes

    @property
    def position(self) -> Position:
        """Behind the last entry that it holds."""
        return Position(self.seal.index, self.seal.used)

    @property
    def age(self) -> tuple[int, int, int, Position, int]:
        """Greater is newer; of two alike slot 0 counts as newer."""
        return self.seal.index, self.seal.used, self.seal.sequence, self.seal.durable, -self.slot


class LogReader:
    """Reads one life of one sealed journal.

    :param backend: the medium
    :param uuid: of the volume
    :param extent: where; its generation is the life that is looked for
    :param fresh: read past every cache (what a dead writer left)
    """

    def __init__(self, backend: Backend, uuid: bytes, extent: Extent, *, fresh: bool = False) -> None:
        self.backend = backend
        self.extent = extent
        self.key = journal_key(uuid, extent.id, extent.generation)
        self.clusters = log_clusters(extent.length)
        self.fresh = fresh

    def offset_of(self, cluster: int) -> int:
        """Byte offset of a log cluster on the volume."""
        return self.extent.offset + (SLOT_CLUSTERS + cluster) * CLUSTER_SIZE

    def read(self, first: int, count: int) -> bytes | bytearray | memoryview:
        """The bytes of `count` log clusters from `first` on, unchecked."""
        return self.backend.read(self.offset_of(first), count * CLUSTER_SIZE, fresh=self.fresh)

    def slot(self, number: int) -> TailCopy | None:
        """Tail slot 0 or 1, or None where it is not valid."""
        offset = self.extent.offset + number * CLUSTER_SIZE
        return self._copy(number, bytes(self.backend.read(offset, CLUSTER_SIZE, fresh=self.fresh)))

    def slots(self) -> list[TailCopy]:
        """The tail slots that are valid, read in one go."""
        data = bytes(self.backend.read(self.extent.offset, SLOT_CLUSTERS * CLUSTER_SIZE, fresh=self.fresh))
        copies = [
            self._copy(number, data[number * CLUSTER_SIZE : (number + 1) * CLUSTER_SIZE])
            for number in range(SLOT_CLUSTERS)
        ]
        return [copy for copy in copies if copy is not None]

    def _copy(self, number: int, cluster: bytes) -> TailCopy | None:
        if not is_valid(self.key, cluster):
            return None
        seal = parse_seal(cluster)
        return TailCopy(number, seal, cluster) if seal.index < self.clusters else None

    def chunks(self, stop: int, first: int = 0) -> Iterator[tuple[int, memoryview]]:
        """Verified log clusters `first` ... `stop` - 1 as (index of the first, their bytes), 4 MiB at a time.

        Raises DamageError for the first that is not what was written.
        """
        while first < stop:
            count = min(CHUNK_CLUSTERS, stop - first)
            data = memoryview(self.read(first, count))
            valid = self.key.count_valid(data, first)
            if valid < count:
                raise self.damage(first + valid)
            yield first, data
            first += count

    def last_cluster(self, end: End) -> tuple[memoryview, int | None]:
        """A valid copy of the cluster that holds `end`, and the slot it is in, or None: the log.

        Any copy with at least that many bytes will do. DamageError where there is none.
        """
        if end.position == (0, 0):
            return memoryview(bytes(CLUSTER_SIZE)), None
        slots = [0, 1] if end.slot in (None, 0) else [1, 0]
        if end.slot is not None:
            for copy in map(self.slot, slots):
                if copy is not None and _holds(copy.cluster, end):
                    return memoryview(copy.cluster), copy.slot
        data = memoryview(self.read(end.cluster, 1))
        if self.key.count_valid(data, end.cluster) and _holds(data, end):
            return data, None
        for copy in map(self.slot, slots):
            if copy is not None and _holds(copy.cluster, end):
                return memoryview(copy.cluster), copy.slot
        raise self.damage(end.cluster, end.slot)

    def damage(self, cluster: int, slot: int | None = None) -> DamageError:
        """The error for a cluster (in the log, or in a slot) that is not what was written."""
        offset = self.offset_of(cluster) if slot is None else self.extent.offset + slot * CLUSTER_SIZE
        where = f"log cluster {cluster}" + ("" if slot is None else f" in tail slot {slot}")
        return DamageError(
            f"{self.backend.url}: journal {self.extent.id}, {where}, at byte {offset} of the volume:"
            " damaged; it was durable",
            journal=self.extent.id,
            cluster=cluster,
            offset=offset,
        )


def _holds(cluster: Buffer, end: End) -> bool:
    """Whether a valid cluster is the one that `end` lies in, with an entry that ends there."""
    return parse_seal(cluster).index == end.cluster and is_boundary(cluster, end.byte)


def valid_flags(reader: LogReader, data: memoryview) -> NDArray[np.bool_]:
    """Which of some clusters are valid, whatever their index."""
    flags = np.zeros(len(data) // CLUSTER_SIZE, np.uint8)
    reader.key.valid_flags(data, flags)
    return flags.view(bool)
