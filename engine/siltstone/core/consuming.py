"""Hands entries without a key to the consumers that plugins registered, while a store opens."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from siltstone.errors import PluginError
from siltstone.plugin.types import ReplayBatch, describe_error

if TYPE_CHECKING:
    from siltstone.log_store.log_store import Others
    from siltstone.plugin.host import PluginHost
    from siltstone.plugin.types import Consumer, EntryType


class Consumers:
    """Who gets what at replay; one call to a consumer at a time."""

    def __init__(self, host: PluginHost, recorded: set[int]) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[int, tuple[EntryType, tuple[Consumer, ...]]] = {}
        for number in recorded & set(host.entry_types):
            entry_type = host.entry_types[number]
            consumers = host.consumers_of(entry_type)
            if entry_type.key is None and consumers:
                self._wanted[number] = entry_type, consumers

    @property
    def consumed(self) -> frozenset[int]:
        """Ids of the types that somebody wants."""
        return frozenset(self._wanted)

    def of_shard(self, shard: int) -> Others | None:
        """What the replay of a shard calls with its chunks' entries, or None where nobody wants any."""
        if not self._wanted:
            return None

        def take(entries: list[tuple[int, bytes]]) -> None:
            by_type: dict[int, list[bytes]] = {}
            for kind, payload in entries:
                if kind in self._wanted:
                    by_type.setdefault(kind, []).append(payload)
            for kind, payloads in by_type.items():
                entry_type, consumers = self._wanted[kind]
                batch = ReplayBatch(shard, entry_type, tuple(payloads))
                for consumer in consumers:
                    self._consume(consumer, batch)

        return take

    def _consume(self, consumer: Consumer, batch: ReplayBatch) -> None:
        try:
            with self._lock:
                consumer.consume(batch)
        except Exception as error:
            raise PluginError(
                f"consumer {consumer.name!r} failed on {len(batch.payloads)} entries of type"
                f" {batch.entry_type.name!r}: {describe_error(error)}",
                plugin=consumer.name,
            ) from error
