"""What core and worker say to each other: the kinds of messages, and how changes, ends and figures travel.

| from | message | answer |
| --- | --- | --- |
| core | HELLO, bulk: what the worker is to know | READY or an error |
| core | RECOVER, id, clean, bulk: superblock | REPLY, bulk: recoveries |
| core | SERVE, id, consumed types | REPLY |
| core | APPEND, id or 0, shard, sequence, records, bulk: entries | REPLY where an id was given |
| core | DELETE, id, shard, type, key size, bulk: keys | REPLY, bulk: a byte a key |
| core | FLUSH, id | REPLY |
| core | TIDY, id, incarnate, begin | REPLY, with bulk where there may be more to do |
| core | SPACE, id, for deletions | REPLY, with bulk where some was freed |
| core | FIGURES, id | REPLY, bulk |
| core | END, id | REPLY, bulk: the ends |
| core | EXIT | the worker ends |
| worker | PROGRESS, credit, news | |
| worker | FAILED, shard | |
| worker | PUBLISH, id, optional, bulk: a change | REPLY, bulk: superblock |
| worker | ENTRIES, shard, bulk: entries without a key | |
| worker | REPLAYED, bytes, bytes in all, records | |
| worker | REPLY, id, error or nil, news | |
| core | REPLY, id, error or nil | |
| core | CREDIT, bytes | |

Answers of a worker have a pipe of their own, which those who wait for them read. News are two items: their
number, since two pipes may bring them in another order, and for each shard that was touched its number, the
last sequence that was dealt with, and what surely fits: bytes of entries, and records. Credit comes with
PROGRESS alone: in an answer it might lie unread while who is to read it waits for it, or for a lock whose
holder does. The answer to FLUSH brings, as bulk, the error of an append that nobody waited for, where one
failed since the last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from siltstone.format.seal import End, Position
from siltstone.journal.recovery import JournalRecovery
from siltstone.shard import changes, checkpoint_changes
from siltstone.shard.changes import JournalEnd, Rolled, Settled, ShardChange
from siltstone.shard.figures import ShardFigures
from siltstone_workers.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Parsed = TypeVar("Parsed")

#: what both sides must have in common: raised with every change of a message
PROTOCOL_VERSION: Final = 3


class Kind(IntEnum):
    """The first item of every message. 0 and 1 belong to frames."""

    HELLO = 2
    READY = 3
    RECOVER = 4
    SERVE = 5
    APPEND = 6
    DELETE = 7
    FLUSH = 8
    FIGURES = 9
    END = 10
    EXIT = 11
    PROGRESS = 12
    FAILED = 13
    PUBLISH = 14
    ENTRIES = 15
    REPLAYED = 16
    REPLY = 17
    CREDIT = 18
    TIDY = 19
    SPACE = 20


class ShardProgress(NamedTuple):
    """How far a worker is with one shard.

    :param shard: its number
    :param sequence: everything sent up to this append has been dealt with
    :param room: bytes of entries that surely still fit without more space
    :param records: keys that the index surely still takes
    """

    shard: int
    sequence: int
    room: int
    records: int


class News(NamedTuple):
    """What a worker says of its progress.

    :param number: rises with every news
    :param shards: those that were touched since the last
    """

    number: int
    shards: list[ShardProgress]

    @classmethod
    def from_wire(cls, items: Sequence[Any]) -> News:
        """The news in the last two items of a message."""
        number, shards = items
        return cls(number, progress_from_wire(shards))


def expect(fields: Sequence[Any], *kinds: type | tuple[type | None, ...]) -> list[Any]:
    """The items behind the kind of a message, if they are of these types; ProtocolError where they are not."""
    items = list(fields[1:])
    if len(items) != len(kinds):
        raise _unfitting(fields)
    # A loop without calls: it runs for every message.
    for item, kind in zip(items, kinds, strict=True):
        if kind is int:
            if type(item) is not int or item < 0:
                raise _unfitting(fields)
        elif type(item) is kind:
            continue
        elif type(kind) is not tuple or (type(item) not in kind and (item is not None or None not in kind)):
            raise _unfitting(fields)
    return items


def _unfitting(fields: Sequence[Any]) -> ProtocolError:
    return ProtocolError(
        f"message {_name(fields)}: items {list(fields[1:])!r:.120} do not fit",
        rule=f"items of {_name(fields)}",
        value=None,
    )


def _name(fields: Sequence[Any]) -> str:
    try:
        return Kind(fields[0]).name
    except (ValueError, IndexError):
        return repr(fields[:1])


# ---- values

_CHANGES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        changes.TakeNext,
        changes.TakeEmpty,
        changes.TakeFresh,
        changes.Give,
        changes.Reserve,
        changes.Roll,
        changes.Settle,
        changes.Pack,
        changes.TakeHashStore,
        changes.Incarnate,
        changes.Merge,
        checkpoint_changes.TakeCheckpoints,
        checkpoint_changes.PublishCheckpoints,
        checkpoint_changes.GiveCheckpoints,
    )
}


def change_to_wire(change: ShardChange) -> list[Any]:
    """A change of the superblock: its name and its fields."""
    fields: list[Any] = [getattr(change, name) for name in change.__dataclass_fields__]
    if isinstance(change, changes.Settle):
        fields = [_fields_of(change.settled)]
    elif isinstance(change, changes.Roll):
        fields = [_fields_of(change.rolled)]
    elif isinstance(change, changes.Pack | changes.Incarnate):
        fields[1:3] = [list(change.sources), [[one.extent, one.end] for one in change.packed]]
        if isinstance(change, changes.Incarnate):
            fields[3:] = [_filled_to_wire(change.hash_store), list(change.passed)]
    elif isinstance(change, changes.Merge):
        fields[1:] = [list(change.sources), _filled_to_wire(change.merged)]
    return [type(change).__name__, fields]


def change_from_wire(value: object) -> ShardChange:
    """The change that was sent, with fields of the right types; whether it may be made is not known yet."""
    return _parsed("change", _change, value)


def _change(value: Any) -> ShardChange:
    name, fields = _list(value, 2)
    kind = _CHANGES[name]
    items = _list(fields, len(kind.__dataclass_fields__))
    if kind is changes.Settle:
        return changes.Settle(tuple(map(_settled, _list(items[0]))))
    if kind in (
        changes.TakeNext,
        checkpoint_changes.TakeCheckpoints,
        checkpoint_changes.PublishCheckpoints,
        checkpoint_changes.GiveCheckpoints,
    ):
        pairs = [_list(pair, 2) for pair in _list(items[0])]
        of_pairs: ShardChange = kind(tuple((_count(shard), _count(number)) for shard, number in pairs))
        return of_pairs
    if kind is changes.Roll:
        return changes.Roll(tuple(map(_rolled, _list(items[0]))))
    if kind is changes.Pack:
        shard, sources, packed = items
        return changes.Pack(_count(shard), _counts(sources), _packed(packed))
    if kind is changes.Incarnate:
        shard, sources, packed, hash_store, passed = items
        return changes.Incarnate(
            _count(shard), _counts(sources), _packed(packed), _filled(hash_store), _counts(passed)
        )
    if kind is changes.Merge:
        shard, sources, merged = items
        return changes.Merge(_count(shard), _counts(sources), _filled(merged))
    if kind in (changes.TakeEmpty, changes.TakeHashStore):
        shard, size, kept = items
        of_space: ShardChange = kind(_count(shard), _count(size), _flag(kept))
        return of_space
    if kind is changes.TakeFresh:
        numbers, kept = items
        return changes.TakeFresh(tuple(map(_count, _list(numbers))), _flag(kept))
    change: ShardChange = kind(*map(_count, items))
    return change


def _counts(value: Any) -> tuple[int, ...]:
    return tuple(map(_count, _list(value)))


def _packed(value: Any) -> tuple[changes.Packed, ...]:
    return tuple(
        changes.Packed(_count(extent), _end(end)) for extent, end in (_list(one, 2) for one in _list(value))
    )


def _filled_to_wire(filled: changes.Filled | None) -> list[int] | None:
    return None if filled is None else [filled.extent, filled.length]


def _filled(value: Any) -> changes.Filled | None:
    return None if value is None else changes.Filled(*map(_count, _list(value, 2)))


def _fields_of(values: Sequence[Rolled] | Sequence[Settled]) -> list[list[Any]]:
    return [[getattr(one, name) for name in one.__dataclass_fields__] for one in values]


def _rolled(value: Any) -> Rolled:
    shard, old, end, fresh = _list(value, 4)
    return Rolled(_count(shard), _count_or_none(old), _end_or_none(end), _count_or_none(fresh))


def _settled(value: Any) -> Settled:
    shard, fresh, recovered, end, dropped = _list(value, 5)
    return Settled(
        _count(shard), _count_or_none(fresh), _count_or_none(recovered), _end_or_none(end), _flag(dropped)
    )


def recoveries_to_wire(found: Sequence[JournalRecovery]) -> list[Any]:
    """What recovery found in some journals."""
    return [[getattr(one, name) for name in JournalRecovery.__dataclass_fields__] for one in found]


def recoveries_from_wire(value: object) -> list[JournalRecovery]:
    """What recovery found, as it was sent."""
    return _parsed("recoveries", _recoveries, value)


def _recoveries(value: Any) -> list[JournalRecovery]:
    return [
        JournalRecovery(
            _count(journal),
            _count(shard),
            _end(end),
            _position(durable),
            _count(clusters),
            _count(size),
            _count(entries),
            _text(reason),
        )
        for journal, shard, end, durable, clusters, size, entries, reason in (
            _list(one, 8) for one in _list(value)
        )
    ]


def ends_to_wire(ends: Sequence[JournalEnd]) -> list[Any]:
    """Where journals end."""
    return [[one.shard, one.extent, one.end, one.closed] for one in ends]


def ends_from_wire(value: object) -> list[JournalEnd]:
    """Where journals end, as it was sent."""
    return _parsed("ends", _ends, value)


def _ends(value: Any) -> list[JournalEnd]:
    return [
        JournalEnd(_count(shard), _count(extent), _end(end), _flag(closed))
        for shard, extent, end, closed in (_list(one, 4) for one in _list(value))
    ]


def figures_to_wire(figures: Sequence[ShardFigures]) -> list[Any]:
    """Some shards in figures."""
    return [[getattr(one, name) for name in ShardFigures.__dataclass_fields__] for one in figures]


def figures_from_wire(value: object) -> list[ShardFigures]:
    """Some shards in figures, as they were sent."""
    return _parsed("figures", _figures, value)


def _figures(value: Any) -> list[ShardFigures]:
    return [
        ShardFigures(
            _count(shard),
            _count(records),
            _count(most),
            _count(size),
            _count_or_none(journal),
            None if position is None else _position(position),
            _count_or_none(dead),
        )
        for shard, records, most, size, journal, position, dead in (_list(one, 7) for one in _list(value))
    ]


def progress_from_wire(value: object) -> list[ShardProgress]:
    """How far some shards are, as it was sent."""
    return _parsed("progress", _progress, value)


def _progress(value: Any) -> list[ShardProgress]:
    return [ShardProgress(*map(_count, _list(one, 4))) for one in _list(value)]


def _parsed(what: str, parse: Callable[[Any], Parsed], value: object) -> Parsed:
    try:
        return parse(value)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ProtocolError(f"no {what}: {value!r:.120}: {error!r:.120}", rule=what, value=None) from error


def _list(value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise ValueError(f"{value!r:.40} is no list of {'any' if length is None else length} items")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _count(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r:.40} is no flag")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r:.40} is no text")
    return value


def _end(value: Any) -> End:
    cluster, byte, slot, sequence = _list(value, 4)
    return End(_count(cluster), _count(byte), _count_or_none(slot), _count(sequence))


def _position(value: Any) -> Position:
    cluster, byte = _list(value, 2)
    return Position(_count(cluster), _count(byte))


def _end_or_none(value: Any) -> End | None:
    return None if value is None else _end(value)
