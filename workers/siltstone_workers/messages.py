"""What core and worker say to each other: the kinds of messages, and how changes, ends and figures travel.

| from | message | answer |
| --- | --- | --- |
| core | HELLO, bulk: what the worker is to know | READY or an error |
| core | RECOVER, id, clean, bulk: superblock | REPLY, bulk: recoveries |
| core | SERVE, id, consumed types | REPLY |
| core | APPEND, id or 0, batches, bulk: entries | REPLY where an id was given |
| core | DELETE, id, shard, type, key size, bulk: keys | REPLY, bulk: a byte a key |
| core | FLUSH, id | REPLY, with bulk where appends failed |
| core | TIDY, id, incarnate, begin | REPLY, with bulk where there may be more to do |
| core | SPACE, id, for deletions | REPLY, with bulk where some was freed |
| core | FIGURES, id | REPLY, bulk |
| core | END, id | REPLY, bulk: the ends, and as the answer to FLUSH has it |
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
last sequence that was dealt with, and what surely fits: bytes of entries, and records; number 0 and no shards
where an answer brings none. Credit comes with PROGRESS alone: in an answer it might lie unread while who is to
read it waits for it, or for a lock whose holder does. The answer to FLUSH brings no news: to gather them would
keep who asked waiting, and the next PROGRESS has them. As bulk it brings, where appends that nobody waited for have
failed in this process, how many and the error of the last, every time: an answer that is not read takes nothing away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from siltstone.journal.recovery import JournalRecovery
from siltstone.shard.changes import JournalEnd
from siltstone.shard.figures import ShardFigures
from siltstone_workers import values
from siltstone_workers.errors import error_from_wire, error_to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siltstone.errors import SiltstoneError

#: what both sides must have in common: raised with every change of a message
PROTOCOL_VERSION: Final = 8


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


class Failures(NamedTuple):
    """How many appends that nobody waited for have failed in a worker, and why the last one did."""

    number: int = 0
    last: SiltstoneError | None = None


def failures_to_wire(failures: Failures) -> list[Any]:
    """What failed without anybody's waiting."""
    return [failures.number, None if failures.last is None else error_to_wire(failures.last)]


def failures_from_wire(value: object) -> Failures:
    """What failed, as it was sent."""
    return values.parsed("failures", _failures, value)


def _failures(value: Any) -> Failures:
    count, last = values.listed(value, 2)
    return Failures(values.count(count), None if last is None else error_from_wire(last))


def ends_to_wire(ends: Sequence[JournalEnd], failures: Failures) -> list[Any]:
    """Where journals end, and what failed before."""
    return [[[one.shard, one.extent, one.end, one.closed] for one in ends], failures_to_wire(failures)]


def ends_from_wire(value: object) -> tuple[list[JournalEnd], Failures]:
    """Where journals end and what failed, as it was sent."""
    return values.parsed("ends", _ends, value)


def _ends(value: Any) -> tuple[list[JournalEnd], Failures]:
    ends, failures = values.listed(value, 2)
    found = [
        JournalEnd(values.count(shard), values.count(extent), values.end(end), values.flag(closed))
        for shard, extent, end, closed in (values.listed(one, 4) for one in values.listed(ends))
    ]
    return found, _failures(failures)


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
