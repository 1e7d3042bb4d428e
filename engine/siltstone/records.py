"""The records that the front door takes and gives. How they lie on the medium is a plugin's to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn

from siltstone.errors import EntryError

__all__ = ["HASH_SIZE", "SECTOR_MAX", "HashInfo"]

#: length of a content hash [bytes]
HASH_SIZE: Final = 32
#: the largest sector number
SECTOR_MAX: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, init=False)
class HashInfo:
    """Where the block with a given content hash lies.

    :param hash: the content hash [32 bytes]
    :param physical_sect: where the block lies on the medium [sectors of 512 bytes]
    :param first_logical_sect: where the block was seen first [sectors of 512 bytes]

    EntryError where a value is none of these.
    """

    hash: bytes
    physical_sect: int
    first_logical_sect: int

    def __init__(self, hash: bytes, physical_sect: int, first_logical_sect: int) -> None:  # noqa: A002
        # One of these is made for each single lookup: one chain of tests, and the slots set without the
        # detour through object.__setattr__ that a generated __init__ of a frozen class takes.
        if (
            type(hash) is not bytes
            or len(hash) != HASH_SIZE
            or type(physical_sect) is not int
            or type(first_logical_sect) is not int
            or not 0 <= physical_sect <= SECTOR_MAX
            or not 0 <= first_logical_sect <= SECTOR_MAX
        ):
            _refuse(hash, physical_sect, first_logical_sect)
        _set_hash(self, hash)
        _set_physical_sect(self, physical_sect)
        _set_first_logical_sect(self, first_logical_sect)


_slots: Final = vars(HashInfo)
_set_hash = _slots["hash"].__set__
_set_physical_sect = _slots["physical_sect"].__set__
_set_first_logical_sect = _slots["first_logical_sect"].__set__


def _refuse(digest: Any, physical_sect: Any, first_logical_sect: Any) -> NoReturn:
    """Raise the EntryError that names the first wrong field and its value."""
    if type(digest) is not bytes:
        raise EntryError(f"hash must be bytes, not {type(digest).__name__}", field="hash", value=digest)
    if len(digest) != HASH_SIZE:
        shown = digest[:HASH_SIZE].hex() + ("…" if len(digest) > HASH_SIZE else "")
        raise EntryError(
            f"hash must be {HASH_SIZE} bytes, not {len(digest)} ({shown or 'none'})",
            field="hash",
            value=digest,
            size=len(digest),
        )
    for field, value in (("physical_sect", physical_sect), ("first_logical_sect", first_logical_sect)):
        if type(value) is not int:
            raise EntryError(f"{field} must be an int, not {type(value).__name__}", field=field, value=value)
        if not 0 <= value <= SECTOR_MAX:
            # Nobody reads a number of a million digits, and Python refuses to print one.
            shown = str(value) if abs(value) <= 1 << 128 else f"a number of {value.bit_length()} bits"
            raise EntryError(f"{field} must be 0-{SECTOR_MAX}, not {shown}", field=field, value=value)
    raise AssertionError("nothing was wrong")
