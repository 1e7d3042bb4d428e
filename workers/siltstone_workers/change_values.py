"""How changes of the superblock travel: by their name and their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from siltstone.format.superblock import Part
from siltstone.shard import changes, checkpoint_changes
from siltstone.shard.changes import Rolled, Settled, ShardChange
from siltstone_workers import values

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        fields[0] = _fields_of(change.rolled)
    elif isinstance(change, changes.Pack | changes.Incarnate):
        fields[1:3] = [list(change.sources), [[one.extent, one.end] for one in change.packed]]
        if isinstance(change, changes.Incarnate):
            fields[3:] = [list(map(_filled_to_wire, change.parts)), list(change.passed)]
    elif isinstance(change, changes.Merge):
        narrowed = [[one.extent, list(one.part)] for one in change.narrowed]
        merged = None if change.merged is None else _filled_to_wire(change.merged)
        fields[2:] = [list(change.freed), narrowed, merged]
    return [type(change).__name__, fields]


def change_from_wire(value: object) -> ShardChange:
    """The change that was sent, with fields of the right types; whether it may be made is not known yet."""
    return values.parsed("change", _change, value)


def _change(value: Any) -> ShardChange:
    name, fields = values.listed(value, 2)
    kind = _CHANGES[name]
    items = values.listed(fields, len(kind.__dataclass_fields__))
    if kind is changes.Settle:
        return changes.Settle(tuple(map(_settled, values.listed(items[0]))))
    if kind in (
        changes.TakeNext,
        checkpoint_changes.TakeCheckpoints,
        checkpoint_changes.PublishCheckpoints,
        checkpoint_changes.GiveCheckpoints,
    ):
        each = values.listed(items[0]) if kind is checkpoint_changes.GiveCheckpoints else _once_each(items[0])
        of_pairs: ShardChange = kind(_pairs(each))
        return of_pairs
    if kind is changes.Roll:
        return changes.Roll(tuple(map(_rolled, _once_each(items[0]))), _pairs(_once_each(items[1])))
    if kind is changes.Pack:
        shard, sources, packed = items
        return changes.Pack(values.count(shard), _counts(sources), _packed(packed))
    if kind is changes.Incarnate:
        shard, sources, packed, parts, passed = items
        filled = tuple(map(_filled, values.listed(parts)))
        return changes.Incarnate(
            values.count(shard), _counts(sources), _packed(packed), filled, _counts(passed)
        )
    if kind is changes.Merge:
        return _merge(items)
    if kind in (changes.TakeEmpty, changes.TakeHashStore):
        shard, size, kept = items
        of_space: ShardChange = kind(values.count(shard), values.count(size), values.flag(kept))
        return of_space
    if kind is changes.TakeFresh:
        numbers, kept = items
        return changes.TakeFresh(tuple(map(values.count, values.listed(numbers))), values.flag(kept))
    change: ShardChange = kind(*map(values.count, items))
    return change


def _once_each(value: Any) -> list[Any]:
    """A list of lists that start with a shard, none of them twice: what is done for each takes its time."""
    shards = [values.listed(one)[0] for one in values.listed(value)]
    if len(set(shards)) != len(shards):
        raise ValueError("a shard is there twice")
    return values.listed(value)


def _pairs(each: list[Any]) -> tuple[tuple[int, int], ...]:
    """Shards, each with a number."""
    pairs = [values.listed(pair, 2) for pair in each]
    return tuple((values.count(shard), values.count(number)) for shard, number in pairs)


def _counts(value: Any) -> tuple[int, ...]:
    return tuple(map(values.count, values.listed(value)))


def _packed(value: Any) -> tuple[changes.Packed, ...]:
    pairs = [values.listed(one, 2) for one in values.listed(value)]
    return tuple(changes.Packed(values.count(extent), values.end(end)) for extent, end in pairs)


def _merge(items: list[Any]) -> changes.Merge:
    shard, order, freed, narrowed, merged = items
    pairs = [values.listed(one, 2) for one in values.listed(narrowed)]
    return changes.Merge(
        values.count(shard),
        values.count(order),
        _counts(freed),
        tuple(changes.Narrowed(values.count(extent), _part(part)) for extent, part in pairs),
        None if merged is None else _filled(merged),
    )


def _filled_to_wire(filled: changes.Filled) -> list[Any]:
    return [filled.extent, filled.length, list(filled.part)]


def _filled(value: Any) -> changes.Filled:
    extent, length, part = values.listed(value, 3)
    return changes.Filled(values.count(extent), values.count(length), _part(part))


def _part(value: Any) -> Part:
    first, entries, tombstones = values.listed(value, 3)
    found = Part(values.hash_of(first), values.count(entries), values.count(tombstones))
    if not found.tombstones <= found.entries or not found.entries:
        raise ValueError(f"{found.entries} entries, {found.tombstones} tombstones")
    return found


def _fields_of(each: Sequence[Rolled] | Sequence[Settled]) -> list[list[Any]]:
    return [[getattr(one, name) for name in one.__dataclass_fields__] for one in each]


def _rolled(value: Any) -> Rolled:
    shard, old, end, fresh = values.listed(value, 4)
    return Rolled(
        values.count(shard), values.count_or_none(old), values.end_or_none(end), values.count_or_none(fresh)
    )


def _settled(value: Any) -> Settled:
    shard, fresh, recovered, end, dropped = values.listed(value, 5)
    return Settled(
        values.count(shard),
        values.count_or_none(fresh),
        values.count_or_none(recovered),
        values.end_or_none(end),
        values.flag(dropped),
    )
