"""Seals of clusters: the seed of a journal's life, and the fields that make a cluster checkable."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from siltstone.format.constants import BODY_SIZE, CLUSTER_SIZE, NO_BOUNDARY, SEAL_SIZE
from siltstone.format.kernels import SealKey

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

_SEED_INPUT = struct.Struct(">16sIQ")
_FIELDS = struct.Struct(">IIHHIH6sQ")

#: the seal as NumPy sees it; the commit sequence is 48 bits: its high 16, its low 32
SEAL_DTYPE = np.dtype(
    [
        ("generation", ">u4"),
        ("index", ">u4"),
        ("used", ">u2"),
        ("committed", ">u2"),
        ("durable_cluster", ">u4"),
        ("durable_byte", ">u2"),
        ("sequence_high", ">u2"),
        ("sequence_low", ">u4"),
        ("checksum", ">u8"),
    ]
)
assert SEAL_DTYPE.itemsize == _FIELDS.size == SEAL_SIZE


class Position(NamedTuple):
    """A place in a log: log cluster, byte in it. Compared as it is: (k, used) < (k + 1, 0)."""

    cluster: int
    byte: int


class End(NamedTuple):
    """Where a log ends: always a batch boundary.

    :param cluster: log cluster
    :param byte: bytes of entries in it
    :param slot: the tail slot that holds this cluster, or None where the log does
    :param sequence: batches committed up to here
    """

    cluster: int
    byte: int
    slot: int | None
    sequence: int

    @property
    def position(self) -> Position:
        """The place alone."""
        return Position(self.cluster, self.byte)


@dataclass(frozen=True, slots=True)
class Seal:
    """The fields of one cluster's seal; what each means is in docs/format.md."""

    generation: int
    index: int
    used: int
    committed: int
    durable: Position
    sequence: int
    checksum: int

    @property
    def boundary(self) -> int | None:
        """Bytes up to the last batch boundary in this cluster, or None where there is none."""
        return None if self.committed == NO_BOUNDARY else self.committed


def journal_seed(uuid: bytes, extent: int, generation: int) -> int:
    """The checksum seed of one life of one journal of one volume."""
    return xxhash.xxh3_64_intdigest(_SEED_INPUT.pack(uuid, extent, generation))


def journal_key(uuid: bytes, extent: int, generation: int) -> SealKey:
    """The key under which the clusters of one life of one journal are sealed."""
    return SealKey(journal_seed(uuid, extent, generation))


def parse_seal(cluster: Buffer) -> Seal:
    """The fields of a cluster's seal, unchecked."""
    fields = _FIELDS.unpack_from(memoryview(cluster), BODY_SIZE)
    generation, index, used, committed, durable_cluster, durable_byte, sequence, checksum = fields
    durable = Position(durable_cluster, durable_byte)
    return Seal(generation, index, used, committed, durable, int.from_bytes(sequence, "big"), checksum)


def seals_of(clusters: Buffer) -> NDArray[Any]:
    """The seals of whole clusters as an array of SEAL_DTYPE, unchecked; a view of the buffer."""
    rows = np.frombuffer(memoryview(clusters), np.uint8).reshape(-1, CLUSTER_SIZE)
    seals: NDArray[Any] = rows[:, BODY_SIZE:].view(SEAL_DTYPE)[:, 0]
    return seals


def is_valid(key: SealKey, cluster: Buffer) -> bool:
    """Whether one 4096-byte cluster is whole and belongs to the key's life of its journal."""
    flag = np.zeros(1, np.uint8)
    key.valid_flags(cluster, flag)
    return bool(flag[0])
