"""What came over a pipe, made sure of piece by piece: each says ValueError or TypeError where it is something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from siltstone.format.seal import End, Position
from siltstone_workers.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

Parsed = TypeVar("Parsed")


def parsed(what: str, parse: Callable[[Any], Parsed], value: object) -> Parsed:
    """What `parse` makes of a value; ProtocolError with the rule `what` where it is something else."""
    try:
        return parse(value)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ProtocolError(f"no {what}: {value!r:.120}: {error!r:.120}", rule=what, value=None) from error


def listed(value: Any, length: int | None = None) -> list[Any]:
    """A list, of so many items where that is said."""
    if type(value) is not list or (length is not None and len(value) != length):
        raise ValueError(f"{value!r:.40} is no list of {'any' if length is None else length} items")
    return value


def count(value: Any) -> int:
    """A whole number that is not negative."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def counts(value: Any, length: int) -> list[int]:
    """A list of so many whole numbers that are not negative."""
    for item in listed(value, length):
        if type(item) is not int or item < 0:
            raise ValueError(f"{item!r:.40} is no count")
    return value  # type: ignore[no-any-return] # looked at just now


def hash_of(value: Any) -> int:
    """A hash of 64 bits."""
    if count(value) >= 1 << 64:
        raise ValueError(f"{value!r:.40} is no hash of 64 bits")
    return int(value)


def count_or_none(value: Any) -> int | None:
    """A count, or None."""
    return None if value is None else count(value)


def flag(value: Any) -> bool:
    """True or False, and no number."""
    if type(value) is not bool:
        raise ValueError(f"{value!r:.40} is no flag")
    return value


def text(value: Any) -> str:
    """Text."""
    if type(value) is not str:
        raise ValueError(f"{value!r:.40} is no text")
    return value


def end(value: Any) -> End:
    """Where a journal ends."""
    cluster, byte, slot, sequence = listed(value, 4)
    return End(count(cluster), count(byte), count_or_none(slot), count(sequence))


def position(value: Any) -> Position:
    """A position in a journal."""
    cluster, byte = listed(value, 2)
    return Position(count(cluster), count(byte))


def end_or_none(value: Any) -> End | None:
    """Where a journal ends, or None."""
    return None if value is None else end(value)
