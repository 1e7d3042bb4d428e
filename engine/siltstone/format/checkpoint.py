"""The header of a checkpoint: which journals it covers, and where the segments of the index lie. Pure bytes, no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xxhash

from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import uint32, uint64
    from numpy.typing import NDArray
    from typing_extensions import Buffer

MAGIC: Final = b"SILTCKP1"
VERSION: Final = 1
#: bytes of the table of keys: offset and size for each of 256 types
KEYS_SIZE: Final = 512
#: bytes of the largest header: 65536 segments, 1024 journals
HEADER_SIZE_MAX: Final = 2 << 20
#: bytes of a bucket: four slots
BUCKET_SIZE: Final = 32

_FIXED = struct.Struct(">8sIIIIIIQIIQ8x")
_JOURNAL = np.dtype(
    [
        ("extent", ">u4"),
        ("number", ">u2"),
        ("reserved", ">u2"),
        ("generation", ">u8"),
        ("live", ">u4"),
        ("entries", ">u4"),
        ("deletions", ">u4"),
        ("keyless", ">u4"),
    ]
)
_SEGMENT = np.dtype([("buckets", ">u4"), ("slots", ">u4"), ("checksum", ">u8")])
_CHECKSUM_SIZE = 8
assert _FIXED.size == 64
assert _JOURNAL.itemsize == 32
assert _SEGMENT.itemsize == 16


@dataclass(frozen=True, slots=True)
class CoveredJournal:
    """A journal that a checkpoint covers.

    :param extent: its id
    :param generation: its life
    :param number: in the index
    :param live: slots that name an entry in it
    :param entries: covered entries, and how many of them are
    :param deletions: deletions, or
    :param keyless: of a type without a key
    """

    extent: int
    generation: int
    number: int
    live: int
    entries: int
    deletions: int
    keyless: int


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """What a checkpoint says of itself.

    :param shard: whose index it is
    :param layout: version of the index's layout in memory
    :param records: keys in it
    :param older: :func:`digest_of` the hash stores, for whose keys slots remember deletions
    :param keys: offset and size of the key of each of 256 types, a byte each; size 0: none
    :param journals: what it covers, oldest first: all whole, but
    :param covered: of the last one only what lies before this
    :param buckets: of each segment, (n,) uint32
    :param slots: of each that name something, (n,) uint32
    :param checksums: XXH3 of the buckets of each that has such slots, with the seed of the extent's life, (n,) uint64
    """

    shard: int
    layout: int
    records: int
    older: int
    keys: bytes
    journals: tuple[CoveredJournal, ...]
    covered: Position
    buckets: NDArray[uint32]
    slots: NDArray[uint32]
    checksums: NDArray[uint64]

    @property
    def size(self) -> int:
        """Bytes of the header: whole clusters."""
        return header_size(len(self.journals), len(self.buckets))

    @property
    def starts(self) -> NDArray[uint64]:
        """Where the buckets of each segment start in the extent [bytes], as (n,) uint64."""
        return places_of(self.buckets, self.slots, self.size)[0]

    def length_of(self, segment: int) -> int:
        """Bytes of a segment's buckets."""
        return int(self.buckets[segment]) * BUCKET_SIZE

    @property
    def stop(self) -> int:
        """Bytes of the extent that are used."""
        return places_of(self.buckets, self.slots, self.size)[1]


def digest_of(hash_stores: Sequence[tuple[int, int]]) -> int:
    """What tells one set of hash stores from others, each as (extent id, generation), oldest first."""
    return xxhash.xxh3_64_intdigest(b"".join(struct.pack(">IQ", *one) for one in hash_stores))


def header_size(journals: int, segments: int) -> int:
    """Bytes of a header: whole clusters."""
    size = (
        _FIXED.size + KEYS_SIZE + journals * _JOURNAL.itemsize + segments * _SEGMENT.itemsize + _CHECKSUM_SIZE
    )
    return -(-size // CLUSTER_SIZE) * CLUSTER_SIZE


def places_of(buckets: NDArray[uint32], slots: NDArray[uint32], start: int) -> tuple[NDArray[uint64], int]:
    """Where the buckets of each segment start, one behind the other from `start` on, and where the last one stops.

    Each starts at a cluster; one whose slots name nothing takes no space.
    """
    sizes = sizes_of(buckets, slots)
    rounded = (sizes + np.uint64(CLUSTER_SIZE - 1)) // np.uint64(CLUSTER_SIZE) * np.uint64(CLUSTER_SIZE)
    stops = np.uint64(start) + np.cumsum(rounded, dtype=np.uint64)
    return stops - rounded, int(stops[-1]) if len(stops) else start


def sizes_of(buckets: NDArray[uint32], slots: NDArray[uint32]) -> NDArray[uint64]:
    """Bytes that are kept of each segment."""
    return np.where(slots > 0, buckets.astype(np.uint64) * np.uint64(BUCKET_SIZE), np.uint64(0))


def encode_header(header: CheckpointHeader, seed: int) -> bytes:
    """The bytes of a header; `seed` is that of its extent's life."""
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        header.size,
        header.layout,
        header.shard,
        len(header.buckets),
        len(header.journals),
        header.records,
        header.covered.cluster,
        header.covered.byte,
        header.older,
    )
    segments = np.zeros(len(header.buckets), _SEGMENT)
    segments["buckets"], segments["slots"] = header.buckets, header.slots
    segments["checksum"] = header.checksums
    rows = fixed + header.keys + _journal_rows(header.journals) + segments.tobytes()
    body = rows.ljust(header.size - _CHECKSUM_SIZE, b"\0")
    return body + xxhash.xxh3_64_intdigest(body, seed).to_bytes(_CHECKSUM_SIZE, "big")


def _journal_rows(journals: Sequence[CoveredJournal]) -> bytes:
    rows = np.zeros(len(journals), _JOURNAL)
    for name in CoveredJournal.__dataclass_fields__:
        rows[name] = [getattr(journal, name) for journal in journals]
    return rows.tobytes()


def promised_size(first: Buffer) -> int:
    """Bytes of the header whose first cluster this is; ValueError where it is none, or of another version."""
    magic, version, size, *_ = _FIXED.unpack_from(memoryview(first))
    if magic != MAGIC:
        raise ValueError("there is no checkpoint")
    if version != VERSION:
        raise ValueError(f"version {version}; this release knows {VERSION}")
    if size % CLUSTER_SIZE or not 0 < size <= HEADER_SIZE_MAX:
        raise ValueError(f"a header of {size} bytes")
    return int(size)


def decode_header(data: bytes, seed: int, length: int) -> CheckpointHeader:
    """The header in `data`, all of its bytes, of an extent of `length` bytes; ValueError where anything is wrong.

    What it says fits itself and the extent; what is in the index is not known yet.
    """
    if promised_size(data) != len(data):
        raise ValueError(f"a header of {len(data)} bytes")
    body = data[:-_CHECKSUM_SIZE]
    if xxhash.xxh3_64_intdigest(body, seed) != int.from_bytes(data[-_CHECKSUM_SIZE:], "big"):
        raise ValueError("the checksum of the header does not hold")
    fields: tuple[Any, ...] = _FIXED.unpack_from(data)
    _magic, _version, _size, layout, shard, segments, journals, records, cluster, byte, older = fields
    if header_size(journals, segments) != len(data):
        raise ValueError(f"a header of {len(data)} bytes for {segments} segments and {journals} journals")
    at = _FIXED.size + KEYS_SIZE
    rows = np.frombuffer(data, _JOURNAL, journals, at)
    parts = np.frombuffer(data, _SEGMENT, segments, at + rows.nbytes)
    header = CheckpointHeader(
        shard=shard,
        layout=layout,
        records=records,
        older=older,
        keys=data[_FIXED.size : at],
        journals=tuple(
            CoveredJournal(*(int(row[name]) for name in CoveredJournal.__dataclass_fields__)) for row in rows
        ),
        covered=Position(cluster, byte),
        buckets=parts["buckets"].astype(np.uint32),
        slots=parts["slots"].astype(np.uint32),
        checksums=parts["checksum"].astype(np.uint64),
    )
    _check(header, length)
    return header


def _check(header: CheckpointHeader, length: int) -> None:
    if not header.journals or not len(header.buckets):
        raise ValueError("it covers nothing")
    numbers = {journal.number for journal in header.journals}
    if len(numbers) != len(header.journals) or max(numbers) >= 1024:
        raise ValueError("two journals have one number, or one that is too large")
    if (header.slots.astype(np.uint64) > header.buckets.astype(np.uint64) * np.uint64(4)).any():
        raise ValueError("a segment has more slots than room")
    slots = int(header.slots.sum(dtype=np.uint64))
    if slots != sum(journal.live for journal in header.journals) or header.records > slots:
        raise ValueError(f"{slots} slots do not fit the journals and {header.records} records")
    if header.stop > length:
        raise ValueError(f"segments reach to byte {header.stop} of an extent of {length}")
