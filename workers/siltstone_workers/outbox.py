"""Small batches on their way to one worker that wait for company: each message costs both sides a system call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import AppendPart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from siltstone_workers.frames import Bytes
    from siltstone_workers.sender import Outgoing


class Outbox:
    """Batches by shard, in order. Those of one shard become one batch: what is together is never torn.

    Whoever uses it holds the process's lock of order.
    """

    def __init__(self) -> None:
        #: of each shard its entries, the sequence of the last batch, records of all, and how many bytes of the entries
        #: count: an interrupt may leave more behind them
        self._waiting: dict[int, tuple[bytearray, int, int, int]] = {}
        #: bytes of entries that wait
        self.bytes = 0

    def add(self, shard: int, sequence: int, stream: NDArray[np.uint8], records: int) -> None:
        """Take a copy of a batch of packed entries: all of it, or, where an interrupt comes, nothing."""
        entries, _sequence, before, size = self._waiting.get(shard) or (bytearray(), 0, 0, 0)
        del entries[size:]
        entries += stream.data
        added = len(stream)
        # Nothing is called from here on.
        self._waiting[shard] = entries, sequence, before + records, size + added
        self.bytes += added

    @property
    def credit(self) -> int:
        """What the message that carries it takes of the credit."""
        return credit_of(self.bytes) if self._waiting else 0

    def messages(self) -> list[Outgoing]:
        """The message that carries everything that waits, if anything does; it goes on waiting."""
        if not self._waiting:
            return []
        parts: list[AppendPart] = []
        bulk: list[Bytes] = []
        for shard, (entries, sequence, records, size) in self._waiting.items():
            del entries[size:]
            parts.append(AppendPart(shard, sequence, records, size))
            bulk.append(entries)
        return [([Kind.APPEND, 0, parts], bulk)]
