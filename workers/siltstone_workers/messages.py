"""What core and worker say to each other: the kinds of messages, and how changes, ends and figures travel.

| from | message | answer |
| --- | --- | --- |
| core | HELLO, bulk: what the worker is to know | READY or an error |
| core | RECOVER, id, clean, bulk: superblock | REPLY, bulk: recoveries |
| core | SERVE, id, consumed types | REPLY |
| core | APPEND, id or 0, batches, bulk: entries | REPLY where an id was given |
| core | DELETE, id, shard, type, key size, bulk: keys | REPLY, bulk: a byte a key |
| core | FLUSH, id | REPLY |
| core | TIDY, id, incarnate, begin | REPLY, with bulk where there may be more to do |
| core | SPACE, id, for deletions | REPLY, with bulk where some was freed |
| core | FIGURES, id | REPLY, bulk |
| core | END, id | REPLY, bulk: the ends |
| core | EXIT | the worker ends |
| worker | PROGRESS, credit, news | |
| worker | FAILED, shard | |
| worker | PUBLISH, id, optional, sequence, bulk: a change | REPLY, bulk: what is new in the superblock |
| worker | ENTRIES, shard, bulk: entries without a key | |
| worker | REPLAYED, bytes, bytes in all, records | |
| worker | REPLY, id, error or nil, news | |
| core | REPLY, id, error or nil | |
| core | CREDIT, bytes | |

PUBLISH says which superblock the worker has, by its sequence; the answer, what is different in the one with its change.

APPEND brings batches of several shards, for each its shard, sequence, records and bytes; their entries lie one behind
the other in the bulk. One that is answered brings one batch.

Answers of a worker have a pipe of their own, which those who wait for them read. News are two items: their
number, since two pipes may bring them in another order, and for each shard that was touched its number, the
last sequence that was dealt with, and what surely fits: bytes of entries, and records. Credit comes with
PROGRESS alone: in an answer it might lie unread while who is to read it waits for it, or for a lock whose
holder does. The answer to FLUSH brings, as bulk, the error of an append that nobody waited for, where one
failed since the last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from siltstone.journal.recovery import JournalRecovery
from siltstone.shard.changes import JournalEnd
from siltstone.shard.figures import ShardFigures
from siltstone_workers import values
from siltstone_workers.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: what both sides must have in common: raised with every change of a message
PROTOCOL_VERSION: Final = 6


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


class AppendPart(NamedTuple):
    """One batch of an APPEND.

    :param shard: its shard
    :param sequence: rises with every batch of the shard
    :param records: how many of its entries may bring a new key
    :param size: bytes of entries
    """

    shard: int
    sequence: int
    records: int
    size: int


def expect(fields: Sequence[Any], *kinds: type | tuple[type | None, ...]) -> list[Any]:
    """The items behind the kind of a message, if they are of these types; ProtocolError where they are not."""
    _kind, *items = fields
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


def recoveries_to_wire(found: Sequence[JournalRecovery]) -> list[Any]:
    """What recovery found in some journals."""
    return [[getattr(one, name) for name in JournalRecovery.__dataclass_fields__] for one in found]


def recoveries_from_wire(value: object) -> list[JournalRecovery]:
    """What recovery found, as it was sent."""
    return values.parsed("recoveries", _recoveries, value)


def _recoveries(value: Any) -> list[JournalRecovery]:
    return [
        JournalRecovery(
            values.count(journal),
            values.count(shard),
            values.end(end),
            values.position(durable),
            values.count(clusters),
            values.count(size),
            values.count(entries),
            values.text(reason),
        )
        for journal, shard, end, durable, clusters, size, entries, reason in (
            values.listed(one, 8) for one in values.listed(value)
        )
    ]


def ends_to_wire(ends: Sequence[JournalEnd]) -> list[Any]:
    """Where journals end."""
    return [[one.shard, one.extent, one.end, one.closed] for one in ends]


def ends_from_wire(value: object) -> list[JournalEnd]:
    """Where journals end, as it was sent."""
    return values.parsed("ends", _ends, value)


def _ends(value: Any) -> list[JournalEnd]:
    return [
        JournalEnd(values.count(shard), values.count(extent), values.end(end), values.flag(closed))
        for shard, extent, end, closed in (values.listed(one, 4) for one in values.listed(value))
    ]


def figures_to_wire(figures: Sequence[ShardFigures]) -> list[Any]:
    """Some shards in figures."""
    return [[getattr(one, name) for name in ShardFigures.__dataclass_fields__] for one in figures]


def figures_from_wire(value: object) -> list[ShardFigures]:
    """Some shards in figures, as they were sent."""
    return values.parsed("figures", _figures, value)


def _figures(value: Any) -> list[ShardFigures]:
    return [
        ShardFigures(
            values.count(shard),
            values.count(records),
            values.count(most),
            values.count(size),
            values.count_or_none(journal),
            None if position is None else values.position(position),
            values.count_or_none(dead),
        )
        for shard, records, most, size, journal, position, dead in (
            values.listed(one, 7) for one in values.listed(value)
        )
    ]


def progress_from_wire(value: object) -> list[ShardProgress]:
    """How far some shards are, as it was sent."""
    return values.parsed("progress", _progress, value)


def _progress(value: Any) -> list[ShardProgress]:
    return [ShardProgress._make(values.counts(one, 4)) for one in values.listed(value)]


def append_parts(value: object) -> list[AppendPart]:
    """The batches of an APPEND, as they were sent."""
    return values.parsed("batches", _append_parts, value)


def _append_parts(value: Any) -> list[AppendPart]:
    return [AppendPart._make(values.counts(one, 4)) for one in values.listed(value)]
