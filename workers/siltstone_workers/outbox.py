"""Small batches on their way to one worker that wait for company: each message costs both sides a system call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import AppendPart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from siltstone_workers.sender import Outgoing


class Outbox:
    """Batches by shard, in order. Those of one shard become one batch: what is together is never torn.

    Whoever uses it holds the process's lock of order.
    """

    def __init__(self) -> None:
        self._entries: dict[int, bytearray] = {}
        self._last: dict[int, tuple[int, int]] = {}  # sequence of the last batch, and records of all
        #: bytes of entries that wait
        self.bytes = 0

    def add(self, shard: int, sequence: int, stream: NDArray[np.uint8], records: int) -> None:
        """Take a copy of a batch of packed entries."""
        entries = self._entries.get(shard)
        if entries is None:
            entries = self._entries[shard] = bytearray()
        _sequence, before = self._last.get(shard, (0, 0))
        entries += stream.data
        self._last[shard] = sequence, before + records
        self.bytes += len(stream)

    @property
    def credit(self) -> int:
        """What the message that carries it takes of the credit."""
        return credit_of(self.bytes) if self._entries else 0

    def take(self) -> list[Outgoing]:
        """The message that carries everything that waits, if anything does; nothing waits any more."""
        if not self._entries:
            return []
        parts = [
            AppendPart(shard, *self._last[shard], len(entries)) for shard, entries in self._entries.items()
        ]
        message = [Kind.APPEND, 0, parts], list(self._entries.values())
        self._entries, self._last, self.bytes = {}, {}, 0
        return [message]
