"""The superblock: what a volume is and which extents it has."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from siltstone.format.constants import (
    DUMP_SIZE,
    EXTENTS_OFFSET,
    JOURNAL_ERASE_BLOCKS_FIRST,
    JOURNAL_SIZE_MAX,
    SECTOR_SIZE,
)

if TYPE_CHECKING:
    from siltstone.format.seal import End

KIND_JOURNAL: Final = "journal"
#: a free extent that only recovery and pack of its shard may take
KIND_RESERVE: Final = "reserve"
KIND_FREE: Final = "free"
KIND_HASH_STORE: Final = "hash_store"
#: the index of a shard as it stood; closed once it is whole
KIND_CHECKPOINT: Final = "checkpoint"
KINDS: Final = (KIND_JOURNAL, KIND_RESERVE, KIND_FREE, KIND_HASH_STORE, KIND_CHECKPOINT)
#: kinds that hold something, or are about to
KINDS_IN_USE: Final = (KIND_JOURNAL, KIND_HASH_STORE, KIND_CHECKPOINT)

FREE: Final = "free"
EMPTY: Final = "empty"
ACTIVE: Final = "active"
CLOSED: Final = "closed"
STATES: Final = (FREE, EMPTY, ACTIVE, CLOSED)

#: a shard's first journal must not be larger than a journal can be [bytes]
ERASE_BLOCK_MAX: Final = JOURNAL_SIZE_MAX // JOURNAL_ERASE_BLOCKS_FIRST

SHARDS_MAX: Final = 1024

_OFFSET = attrgetter("offset")
_DUMP = struct.Struct(">QQ")
assert _DUMP.size == DUMP_SIZE


def dump_extent(offset: int, length: int) -> bytes:
    """The RFC's 16 bytes: sector and size in bytes of a journal."""
    return _DUMP.pack(offset // SECTOR_SIZE, length)


def parse_dump(dump: bytes) -> tuple[int, int]:
    """(offset, length) in bytes of what :func:`dump_extent` wrote."""
    sector, length = _DUMP.unpack(dump)
    return sector * SECTOR_SIZE, length


class Part(NamedTuple):
    """What counts of an extent of a hash store: a merge takes the entries before that to another one.

    :param first: entries with a smaller hash do not count
    :param entries: how many count, tombstones included
    :param tombstones: how many of them are tombstones
    """

    first: int
    entries: int
    tombstones: int


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of whole erase blocks that one journal or hash store owns, or nobody.

    `generation` is the sequence of the superblock write that created or recycled it; `order` its place in the
    replay of its shard; `end` where a closed or cleanly left journal ends; `part` what counts of a hash store.
    """

    id: int
    offset: int
    length: int
    kind: str = KIND_FREE
    shard: int = 0
    order: int = 0
    state: str = FREE
    format: str = "sealed"
    generation: int = 0
    end: End | None = None
    part: Part | None = None

    @property
    def stop(self) -> int:
        """First byte behind it."""
        return self.offset + self.length

    def to_map(self) -> dict[str, Any]:
        """As the payload holds it."""
        fields = {
            "id": self.id,
            "kind": self.kind,
            "shard": self.shard,
            "order": self.order,
            "state": self.state,
            "format": self.format,
            "generation": self.generation,
            "end": None if self.end is None else list(self.end),
            "dump": dump_extent(self.offset, self.length),
        }
        if self.part is not None:
            fields["part"] = list(self.part)
        return fields


#: stands before every part
NO_PART: Final = Part(0, 0, 0)


@dataclass(frozen=True, slots=True)
class RecordedType:
    """An entry type that the volume holds or may hold: who provides it."""

    name: str
    version: int
    distribution: str


@dataclass(frozen=True, slots=True)
class Superblock:
    """The volume's own description. `created` is in seconds since 1970; `sequence` counts its writes."""

    uuid: bytes
    erase_block: int
    created: int
    shards: int
    sequence: int = 0
    epoch: int = 0
    clean: bool = True
    next_extent: int = 1
    entry_types: dict[int, RecordedType] = field(default_factory=dict)
    extents: tuple[Extent, ...] = ()

    def extent(self, number: int) -> Extent:
        """The extent with this id; KeyError where there is none."""
        for extent in self.extents:
            if extent.id == number:
                return extent
        raise KeyError(number)

    def with_extents(self, *changed: Extent) -> Superblock:
        """A copy in which these extents, old or new by id, stand as given, in order of offset."""
        by_id = {extent.id: extent for extent in changed}
        extents = [extent for extent in self.extents if extent.id not in by_id]
        extents += by_id.values()
        return replace(self, extents=tuple(sorted(extents, key=_OFFSET)))

    def journals(self, shard: int | None = None) -> list[Extent]:
        """The journals that hold or may hold entries, of one shard or of all, oldest first."""
        found = [
            extent
            for extent in self.extents
            if (shard is None or extent.shard == shard)
            and extent.kind == KIND_JOURNAL
            and extent.state in (ACTIVE, CLOSED)
        ]
        return sorted(found, key=lambda extent: (extent.shard, extent.order))

    def hash_stores(self, shard: int | None = None) -> list[Extent]:
        """The parts of hash stores, of one shard or of all, oldest first, those of one store by their hashes."""
        found = [
            extent
            for extent in self.extents
            if extent.kind == KIND_HASH_STORE and extent.state == CLOSED and shard in (None, extent.shard)
        ]
        return sorted(found, key=lambda extent: (extent.shard, extent.order, extent.part or NO_PART))

    @property
    def hash_store_count(self) -> int:
        """How many hash stores there are, in however many parts."""
        return len({(part.shard, part.order) for part in self.hash_stores()})


def first_extent_offset(erase_block: int) -> int:
    """Where the first extent may start: the first erase-block boundary at or after 1 MiB."""
    return -(-EXTENTS_OFFSET // erase_block) * erase_block
