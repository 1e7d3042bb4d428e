"""Entry type `chunk_location`: in which pack file, and where in it, a chunk of a backup lies.

The payload varies in size, since it ends with the name of the pack:

| offset | size | what |
| --- | --- | --- |
| 0 | 32 | hash of the chunk: the key |
| 32 | 8 | offset in the pack [bytes], big-endian |
| 40 | 4 | length in the pack [bytes], big-endian |
| 44 | 1-200 | name of the pack, UTF-8 |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from siltstone.plugin import EntryType

_HEAD: Final = struct.Struct(">32sQI")
_PACK_SIZE_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class ChunkLocation:
    """Where a chunk lies.

    :param chunk: its hash [32 bytes]
    :param pack: name of the pack file [1-200 bytes as UTF-8]
    :param offset: where it begins in the pack [bytes]
    :param length: how long it is in the pack [bytes]
    """

    chunk: bytes
    pack: str
    offset: int
    length: int


def _check_pack(name: bytes) -> None:
    if not 1 <= len(name) <= _PACK_SIZE_MAX:
        raise ValueError(f"name of the pack takes {len(name)} bytes, must be 1-{_PACK_SIZE_MAX}")


def encode(location: ChunkLocation) -> bytes:
    """Return the payload of `location`; ValueError or struct.error for what does not fit."""
    # struct would fill up a short hash, and cut a long one, without a word.
    if len(location.chunk) != 32:
        raise ValueError(f"hash of the chunk has {len(location.chunk)} bytes, must be 32")
    name = location.pack.encode()
    _check_pack(name)
    return _HEAD.pack(location.chunk, location.offset, location.length) + name


def decode(payload: bytes) -> ChunkLocation:
    """Return the location in `payload`; ValueError or struct.error where it is none."""
    chunk, offset, length = _HEAD.unpack_from(payload)
    name = payload[_HEAD.size :]
    _check_pack(name)
    return ChunkLocation(chunk, name.decode(), offset, length)


CHUNK_LOCATION: Final = EntryType(
    id=0x60,
    name="chunk_location",
    version=1,
    record=ChunkLocation,
    encode=encode,
    decode=decode,
    key=(0, 32),
)
