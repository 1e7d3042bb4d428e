"""How superblocks travel to a worker: what is different from the one that it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from siltstone.format.superblock import KINDS, STATES, Extent, Part, RecordedType
from siltstone_workers import values

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock


def difference_to_wire(before: Superblock | None, after: Superblock) -> list[Any]:
    """What is in `after` and not in `before`, of the same volume; None: all that may ever change."""
    gone = {} if before is None else {extent.id: extent for extent in before.extents}
    # The same object mostly: a change leaves what it does not touch.
    changed = [extent for extent in after.extents if gone.pop(extent.id, None) is not extent]
    return [
        0 if before is None else before.sequence,
        after.sequence,
        after.epoch,
        after.clean,
        after.next_extent,
        [
            [number, known.name, known.version, known.distribution]
            for number, known in after.entry_types.items()
        ],
        list(gone),
        [_extent_to_wire(extent) for extent in changed],
    ]


def difference_from_wire(before: Superblock, value: object) -> Superblock:
    """The superblock that :func:`difference_to_wire` told, for whoever has `before`; ProtocolError where it is none."""
    return values.parsed("superblock", lambda value: _superblock(before, value), value)


def _superblock(before: Superblock, value: Any) -> Superblock:
    base, sequence, epoch, clean, next_extent, types, gone, changed = values.listed(value, 8)
    if values.count(base) not in (0, before.sequence):
        raise ValueError(f"what changed since superblock {base}, where {before.sequence} is known")
    lost = set(map(values.count, values.listed(gone)))
    kept = tuple(extent for extent in before.extents if base and extent.id not in lost)
    after = replace(
        before,
        sequence=values.count(sequence),
        epoch=values.count(epoch),
        clean=values.flag(clean),
        next_extent=values.count(next_extent),
        entry_types=dict(map(_entry_type, values.listed(types))),
        extents=kept,
    )
    return after.with_extents(*map(_extent, values.listed(changed)))


def _entry_type(value: Any) -> tuple[int, RecordedType]:
    number, name, version, distribution = values.listed(value, 4)
    known = RecordedType(values.text(name), values.count(version), values.text(distribution))
    return values.count(number), known


def _extent_to_wire(extent: Extent) -> list[Any]:
    return [
        extent.id,
        extent.offset,
        extent.length,
        extent.kind,
        extent.shard,
        extent.order,
        extent.state,
        extent.format,
        extent.generation,
        None if extent.end is None else list(extent.end),
        None if extent.part is None else list(extent.part),
    ]


def _extent(value: Any) -> Extent:
    number, offset, length, kind, shard, order, state, layout, generation, end, part = values.listed(
        value, 11
    )
    if kind not in KINDS or state not in STATES:
        raise ValueError(f"{kind!r:.40}, {state!r:.40} is no kind and state of an extent")
    return Extent(
        values.count(number),
        values.count(offset),
        values.count(length),
        kind,
        values.count(shard),
        values.count(order),
        state,
        values.text(layout),
        values.count(generation),
        values.end_or_none(end),
        None if part is None else Part._make(values.counts(part, 3)),
    )
