"""A shard in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siltstone.format.seal import Position


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """One shard in figures.

    :param shard: its number
    :param records: keys in its index
    :param records_max: where its index reaches its budget
    :param index_bytes: memory of the index [bytes]
    :param journal: extent id of its active journal, or None
    :param position: how far that is filled
    :param dead: entries in its journals that no longer count, deletions among them; None: not known
    """

    shard: int
    records: int
    records_max: int
    index_bytes: int
    journal: int | None = None
    position: Position | None = None
    dead: int | None = None
