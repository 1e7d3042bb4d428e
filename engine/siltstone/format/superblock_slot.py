"""A superblock in its slot: its bytes, and whether bytes are one. Pure bytes, no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import xxhash

from siltstone.errors import DamageError, DiskFullError, ForeignVolumeError, VersionError
from siltstone.format.constants import (
    CLUSTER_SIZE,
    DUMP_SIZE,
    ERASE_BLOCK_MIN,
    FORMAT_VERSION,
    JOURNAL_SIZE_MAX,
    SLOT_CLUSTERS,
    SUPERBLOCK_HEADER_SIZE,
    SUPERBLOCK_MAGIC,
    SUPERBLOCK_PAYLOAD_MAX,
    USED_MAX,
)
from siltstone.format.packing import pack, unpack
from siltstone.format.seal import End
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    ERASE_BLOCK_MAX,
    FREE,
    KIND_CHECKPOINT,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    KIND_RESERVE,
    KINDS,
    KINDS_IN_USE,
    SHARDS_MAX,
    STATES,
    Extent,
    Part,
    RecordedType,
    Superblock,
    first_extent_offset,
    parse_dump,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = struct.Struct(">8sIIQQ")
#: numbers that are counted up from what a superblock says stay below this
_COUNT_MAX = 1 << 63
#: an extent id has 32 bits in a journal's seed
_EXTENT_ID_MAX = 1 << 32
assert _HEADER.size == SUPERBLOCK_HEADER_SIZE


def encode_slot(superblock: Superblock, *, spared: int = 0) -> bytes:
    """The bytes of a slot, padded with zeros to whole clusters.

    DiskFullError where the payload does not fit, or would leave less than `spared` bytes.
    """
    payload = pack(
        {
            "uuid": superblock.uuid,
            "cluster_size": CLUSTER_SIZE,
            "erase_block": superblock.erase_block,
            "created": superblock.created,
            "shards": superblock.shards,
            "epoch": superblock.epoch,
            "clean": superblock.clean,
            "next_extent": superblock.next_extent,
            "entry_types": {
                number: [known.name, known.version, known.distribution]
                for number, known in sorted(superblock.entry_types.items())
            },
            "extents": [extent.to_map() for extent in superblock.extents],
        }
    )
    if superblock.next_extent >= _EXTENT_ID_MAX:
        raise DiskFullError(f"extent ids end at {_EXTENT_ID_MAX - 1}", needed=superblock.next_extent)
    if len(payload) > SUPERBLOCK_PAYLOAD_MAX - spared:
        raise DiskFullError(
            f"the superblock has no room for {len(superblock.extents)} extents: {len(payload)} bytes,"
            f" at most {SUPERBLOCK_PAYLOAD_MAX}",
            needed=len(payload),
        )
    head = _HEADER.pack(SUPERBLOCK_MAGIC, FORMAT_VERSION, len(payload), superblock.sequence, 0)[:24]
    data = head + xxhash.xxh3_64_intdigest(head + payload).to_bytes(8, "big") + payload
    return data + bytes(-len(data) % CLUSTER_SIZE)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot whose checksum holds: its sequence, its exact bytes, the superblock in them."""

    sequence: int
    data: bytes
    superblock: Superblock


def slot_length(header: bytes) -> int | None:
    """Bytes of header and payload that a slot's first 32 bytes promise, or None where they are not ours."""
    magic, _version, length, _sequence, _checksum = _HEADER.unpack(header[:SUPERBLOCK_HEADER_SIZE])
    if magic != SUPERBLOCK_MAGIC or length > SUPERBLOCK_PAYLOAD_MAX:
        return None
    return SUPERBLOCK_HEADER_SIZE + int(length)


def slot_version(header: bytes) -> int | None:
    """The format version that a slot's header names, whatever its checksum, or None where the magic is not ours."""
    magic, version, *_ = _HEADER.unpack(header[:SUPERBLOCK_HEADER_SIZE])
    return int(version) if magic == SUPERBLOCK_MAGIC else None


def decode_slot(data: bytes, url: str = "volume", like: Slot | None = None) -> Slot | None:
    """The slot in `data`, or None where it is not ours or its checksum fails.

    `like`, the other slot, is returned where the bytes are the same, as they mostly are. Raises VersionError for a
    whole slot of another version, ForeignVolumeError for a whole slot whose payload breaks a rule: that is not damage
    but another writer.
    """
    if len(data) < SUPERBLOCK_HEADER_SIZE:
        return None
    length = slot_length(data)
    if length is None or length > len(data):
        return None
    data = data[:length]
    if like is not None and like.data == data:
        return like
    _magic, version, _length, sequence, checksum = _HEADER.unpack_from(data)
    payload = data[SUPERBLOCK_HEADER_SIZE:]
    if xxhash.xxh3_64_intdigest(data[:24] + payload) != checksum:
        return None
    if version != FORMAT_VERSION:
        raise VersionError(
            f"{url}: format version {version}; this release knows {FORMAT_VERSION}",
            url=url,
            version=version,
            known=FORMAT_VERSION,
        )
    try:
        superblock = _parse(unpack(payload), sequence)
    except (ValueError, KeyError, TypeError) as error:
        raise ForeignVolumeError(f"{url}: superblock {sequence}: {error!s}", url=url) from error
    return Slot(sequence, data, superblock)


def choose_slot(first: Slot | None, second: Slot | None, url: str = "volume") -> Slot:
    """The current superblock of two slots; DamageError or ForeignVolumeError where they contradict or both fail."""
    if first is None and second is None:
        raise ForeignVolumeError(
            f"{url}: not a Siltstone volume, or both superblock slots are damaged", url=url
        )
    if first is None or second is None:
        return first or second  # type: ignore[return-value]
    if first.superblock.uuid != second.superblock.uuid:
        raise DamageError(
            f"{url}: the superblock slots belong to two volumes, {first.superblock.uuid.hex()} and"
            f" {second.superblock.uuid.hex()}",
            url=url,
        )
    if first.sequence == second.sequence and first.data != second.data:
        raise DamageError(f"{url}: two superblocks with sequence {first.sequence} differ", url=url)
    return first if first.sequence >= second.sequence else second


# ---- the payload is checked field by field: it comes from outside, and so does what an error shows of it


def _integer(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    value = fields[name]
    if type(value) is not int or not low <= value < high:
        raise ValueError(f"{name} is {short(value)}, must be an integer of {low} to {high - 1}")
    return value


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = fields[name]
    if value not in choices:
        raise ValueError(f"{name} is {short(value)}, must be one of {', '.join(choices)}")
    return str(value)


def _of_type(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name} is {short(value)}, must be a {kind.__name__}")
    return value


def _parse(fields: Any, sequence: int) -> Superblock:
    _of_type(fields, dict, "the payload")
    if sequence >= _COUNT_MAX:
        raise ValueError(f"sequence {sequence}, must be below {_COUNT_MAX}")
    _integer(fields, "cluster_size", CLUSTER_SIZE, CLUSTER_SIZE + 1)
    erase_block = _integer(fields, "erase_block", ERASE_BLOCK_MIN, ERASE_BLOCK_MAX + 1)
    if erase_block & (erase_block - 1):
        raise ValueError(f"erase_block {erase_block} is no power of two")
    uuid = _of_type(fields["uuid"], bytes, "uuid")
    if len(uuid) != 16:
        raise ValueError(f"uuid is {short(uuid)}, must be 16 bytes")
    superblock = Superblock(
        uuid=uuid,
        erase_block=erase_block,
        created=_integer(fields, "created", 0, _COUNT_MAX),
        shards=_integer(fields, "shards", 1, SHARDS_MAX + 1),
        sequence=sequence,
        epoch=_integer(fields, "epoch", 0, _COUNT_MAX),
        clean=_of_type(fields["clean"], bool, "clean"),
        next_extent=_integer(fields, "next_extent", 0, _EXTENT_ID_MAX),
        entry_types=dict(map(_parse_type, _of_type(fields["entry_types"], dict, "entry_types").items())),
    )
    listed = _of_type(fields["extents"], list, "extents")
    extents = [_parse_extent(_of_type(each, dict, "an extent"), superblock) for each in listed]
    _check_extents(extents, superblock)
    return replace(superblock, extents=tuple(extents))


def _parse_type(item: tuple[Any, Any]) -> tuple[int, RecordedType]:
    number, recorded = item
    kinds = [type(value) for value in _of_type(recorded, list, "an entry type")]
    if type(number) is not int or not 0 < number < 255 or kinds != [str, int, str] or recorded[1] < 0:
        raise ValueError(f"entry type {short(number)} is {short(recorded)}")
    return number, RecordedType(*recorded)


def _parse_end(end: Any, length: int) -> End:
    if len(_of_type(end, list, "end")) != 4:
        raise ValueError(f"end is {short(end)}, must be cluster, byte, slot, sequence")
    cluster, byte, slot, sequence = end
    whole = all(type(value) is int and value >= 0 for value in (cluster, byte, sequence))
    if (
        not whole
        or sequence >= 1 << 48
        or (slot is not None and (type(slot) is not int or slot not in (0, 1)))
    ):
        raise ValueError(f"end is {short(end)}")
    if byte > USED_MAX or (cluster + SLOT_CLUSTERS + 1) * CLUSTER_SIZE > length:
        raise ValueError(f"end {end} is beyond an extent of {length} bytes")
    return End(cluster, byte, slot, sequence)


def _parse_extent(fields: dict[str, Any], superblock: Superblock) -> Extent:
    dump = _of_type(fields["dump"], bytes, "dump")
    if len(dump) != DUMP_SIZE:
        raise ValueError(f"dump is {short(dump)}, must be {DUMP_SIZE} bytes")
    offset, length = parse_dump(dump)
    return Extent(
        id=_integer(fields, "id", 0, superblock.next_extent),
        offset=offset,
        length=length,
        kind=_choice(fields, "kind", KINDS),
        shard=_integer(fields, "shard", 0, superblock.shards),
        order=_integer(fields, "order", 0, _COUNT_MAX),
        state=_choice(fields, "state", STATES),
        format=_choice(fields, "format", ("sealed",)),
        generation=_integer(fields, "generation", 0, superblock.sequence + 1),
        end=None if fields["end"] is None else _parse_end(fields["end"], length),
        part=_parse_part(fields["part"], length) if "part" in fields else None,
    )


def _parse_part(part: Any, length: int) -> Part:
    if len(_of_type(part, list, "part")) != 3:
        raise ValueError(f"part is {short(part)}, must be first hash, entries, tombstones")
    first, entries, tombstones = part
    whole = all(type(value) is int and value >= 0 for value in part)
    if not whole or first >= 1 << 64 or not tombstones <= entries or not 0 < entries <= length:
        raise ValueError(f"part is {short(part)} in an extent of {length} bytes")
    return Part(first, entries, tombstones)


def _check_extents(extents: Sequence[Extent], superblock: Superblock) -> None:
    position = first_extent_offset(superblock.erase_block)
    for extent in sorted(extents, key=lambda extent: extent.offset):
        if (
            extent.offset % superblock.erase_block
            or extent.length % superblock.erase_block
            or extent.length == 0
        ):
            raise ValueError(
                f"extent {extent.id} at {extent.offset}, {extent.length} bytes, is not whole erase blocks"
            )
        if extent.offset < position:
            raise ValueError(f"extent {extent.id} at {extent.offset} overlaps what ends at {position}")
        wrong = extent.kind in (KIND_HASH_STORE, KIND_CHECKPOINT) and extent.state == ACTIVE
        if (extent.kind in KINDS_IN_USE) == (extent.state == FREE) or wrong:
            raise ValueError(f"extent {extent.id} is of kind {extent.kind} and {extent.state}")
        if extent.kind in (KIND_JOURNAL, KIND_RESERVE) and extent.length > JOURNAL_SIZE_MAX:
            raise ValueError(
                f"{extent.kind} {extent.id} has {extent.length} bytes, at most {JOURNAL_SIZE_MAX}"
            )
        if extent.state == CLOSED and (extent.end is None) == (extent.kind == KIND_JOURNAL):
            raise ValueError(f"extent {extent.id}, a {extent.kind}, is closed and has the end {extent.end}")
        if (extent.part is None) == (extent.kind == KIND_HASH_STORE and extent.state == CLOSED):
            raise ValueError(
                f"extent {extent.id}, a {extent.kind} {extent.state}, has the part {extent.part}"
            )
        if extent.kind == KIND_CHECKPOINT and extent.end is not None:
            raise ValueError(f"checkpoint {extent.id} has the end {extent.end}")
        position = extent.stop
    if position >= 1 << 63:
        raise ValueError(f"extents reach to {position}")
    if len({extent.id for extent in extents}) != len(extents):
        raise ValueError("two extents have one id")
    active = [extent.shard for extent in extents if extent.state == ACTIVE]
    if len(set(active)) != len(active):
        raise ValueError("a shard has two active journals")
    closed = [extent for extent in extents if extent.state in (ACTIVE, CLOSED)]
    checkpoints = [extent.shard for extent in closed if extent.kind == KIND_CHECKPOINT]
    if len(set(checkpoints)) != len(checkpoints):
        raise ValueError("a shard has two checkpoints")
    places = [
        (extent.kind, extent.shard, extent.order, extent.part and extent.part.first)
        for extent in closed
        if extent.kind != KIND_CHECKPOINT
    ]
    if len(set(places)) != len(places):
        raise ValueError("two journals or hash stores of a shard have one place in its replay")
