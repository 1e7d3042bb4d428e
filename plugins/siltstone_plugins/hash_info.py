"""The first entry type: a content hash and the two sectors that belong to it, as the RFC lays it out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from siltstone.errors import EntryError
from siltstone.format.constants import ENTRY_HEADER_SIZE, TYPE_HASH
from siltstone.plugin import EntryType, hookimpl
from siltstone.records import HASH_SIZE, HashInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HASH_INFO", "hash_info_from_journal_entry", "journal_entry_from_hash_info"]

_PAYLOAD: Final = struct.Struct(">32sQQ")
_ENTRY: Final = struct.Struct(">BB32sQQ")

assert _ENTRY.size == ENTRY_HEADER_SIZE + _PAYLOAD.size == 50
assert _PAYLOAD.size == HASH_SIZE + 2 * 8


def _encode(info: HashInfo) -> bytes:
    return _PAYLOAD.pack(info.hash, info.physical_sect, info.first_logical_sect)


def _decode(payload: bytes) -> HashInfo:
    return HashInfo(*_PAYLOAD.unpack(payload))


HASH_INFO: Final = EntryType(
    id=TYPE_HASH,
    name="hash_info",
    version=1,
    record=HashInfo,
    encode=_encode,
    decode=_decode,
    fields=(("hash", "V32"), ("physical_sect", ">u8"), ("first_logical_sect", ">u8")),
    key=(0, HASH_SIZE),
)


def journal_entry_from_hash_info(info: HashInfo) -> bytes:
    """Return the whole journal entry of `info` [50 bytes]: size, type, payload; EntryError if it is none."""
    return bytes((_ENTRY.size, TYPE_HASH)) + HASH_INFO.to_payload(info)


def hash_info_from_journal_entry(entry: bytes) -> HashInfo:
    """Return the record in a whole journal entry [50 bytes].

    EntryError, naming the byte, where length, size or type is another (the RFC's -EINVAL).
    """
    if len(entry) != _ENTRY.size:
        raise EntryError(f"hash_info: entry of {len(entry)} bytes, must be {_ENTRY.size}", size=len(entry))
    size, entry_type, digest, physical_sect, first_logical_sect = _ENTRY.unpack(entry)
    if size != _ENTRY.size:
        raise EntryError(
            f"hash_info: size byte at offset 0 is {size}, must be {_ENTRY.size}", size=size, offset=0
        )
    if entry_type != TYPE_HASH:
        raise EntryError(
            f"hash_info: type byte at offset 1 is {entry_type:#04x}, must be {TYPE_HASH:#04x}",
            type=entry_type,
            offset=1,
        )
    return HashInfo(digest, physical_sect, first_logical_sect)


@hookimpl
def siltstone_entry_types() -> Iterator[EntryType]:
    """Provide `hash_info`."""
    yield HASH_INFO
