"""What the caller of a whole store puts, and what it was told."""

from __future__ import annotations

from dataclasses import dataclass

from siltstone.format.constants import TYPE_HASH

PAYLOAD_SIZE = 48
ENTRY_SIZE = 50
#: enough to close one cluster, wherever in it they start
BATCH = 90

#: what one shard was given: packed batches, oldest first
History = tuple[bytes, ...]


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def put(number: int, value: int) -> bytes:
    """The entry that puts `value` under key `number`."""
    return bytes((ENTRY_SIZE, TYPE_HASH)) + key(number) + value.to_bytes(8, "big") * 2


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller knew once `operations` were done, by shard: what was given, how many batches are durable.

    `packed`: shards whose journals need no longer hold all that was given, but must still say the same.
    """

    operations: int
    given: tuple[History, ...]
    flushed: tuple[int, ...]
    packed: frozenset[int] = frozenset()
