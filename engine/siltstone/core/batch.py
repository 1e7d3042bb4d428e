"""Batches: puts and deletes that are applied together, all or none per shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.core.columns import key_rows, one_key, payload_rows
from siltstone.errors import StateError
from siltstone.format.constants import ENTRY_HEADER_SIZE
from siltstone.shard.batches import delete_stream

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from siltstone.core.core import Core
    from siltstone.plugin.types import EntryType


class Batch:
    """Gathers puts and deletes in memory; applies them in order when its block ends without an error."""

    def __init__(self, core: Core, default: EntryType) -> None:
        self._core = core
        self._default = default
        self._pieces: dict[int, list[NDArray[np.uint8]]] = {}
        self._records: dict[int, int] = {}
        self._done = False

    def put(self, record: Any) -> None:
        """Add one record."""
        entry_type = self._core.host.entry_type_of(record)
        payload = entry_type.to_payload(record)
        self._core.record_type(entry_type)
        self._add(*self._core.router.entry(entry_type.id, payload, entry_type.key is not None), 1)

    def put_many(self, *columns: ArrayLike, entry_type: str | None = None) -> None:
        """Add n records, given as one array a field."""
        kind = self._type(entry_type)
        rows = payload_rows(kind, columns)
        self._core.record_type(kind)
        stream, counts = self._core.router.route(kind.id, rows)
        start, size = 0, rows.shape[1] + ENTRY_HEADER_SIZE
        for shard, count in enumerate(counts.tolist()):
            if count:
                self._add(shard, stream[start : start + count * size], count)
                start += count * size

    def delete(self, key: Buffer, *, entry_type: str | None = None) -> None:
        """Add the deletion of one key, whether or not it is there."""
        self.delete_many(one_key(key), entry_type=entry_type)

    def delete_many(self, keys: ArrayLike, *, entry_type: str | None = None) -> None:
        """Add the deletion of n keys, whether or not they are there."""
        kind = self._type(entry_type)
        rows = key_rows(kind, keys)
        shards = self._core.router.shards_of(kind.id, rows)
        for shard in np.flatnonzero(np.bincount(shards)).tolist():
            self._add(shard, delete_stream(kind.id, np.ascontiguousarray(rows[shards == shard])), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = True
        if kind is None and self._pieces:
            self._core.writable().append(
                {
                    shard: (np.concatenate(found), self._records[shard])
                    for shard, found in self._pieces.items()
                }
            )
        self._pieces = {}

    def _type(self, name: str | None) -> EntryType:
        return self._default if name is None else self._core.host.entry_type_named(name)

    def _add(self, shard: int, stream: NDArray[np.uint8], records: int) -> None:
        if self._done:
            raise StateError("the batch has ended", what="batch", state="ended")
        self._pieces.setdefault(shard, []).append(stream)
        self._records[shard] = self._records.get(shard, 0) + records
