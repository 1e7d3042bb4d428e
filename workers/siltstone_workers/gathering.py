"""Batches on their way to workers: those of shards that one worker has travel together, as far as a frame takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from siltstone_workers.frames import credit_of
from siltstone_workers.messages import AppendPart, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from siltstone_workers.answers import Answer
    from siltstone_workers.frames import Bytes
    from siltstone_workers.ledger import Ledger
    from siltstone_workers.sender import Outgoing

#: so many batches are told of in a short message
TOGETHER_MAX: Final = 32


class Batch(NamedTuple):
    """Packed entries of one shard.

    :param ledger: the shard's
    :param stream: the entries; the caller's, and not to be changed until a worker has them
    :param records: how many of them may bring a new key
    """

    ledger: Ledger
    stream: NDArray[np.uint8]
    records: int


class Destination(Protocol):
    """A worker that batches go to.

    :param frame_room: bytes of entries that one frame takes
    :param ledgers: of its shards, by their numbers
    """

    frame_room: int
    ledgers: Mapping[int, Ledger]


_Where = TypeVar("_Where", bound=Destination)


class Parcel:
    """What one worker is sent at once: the batches that nobody waits for in one message, each other one in its own."""

    def __init__(self) -> None:
        self._parts: list[AppendPart] = []
        self._bulk: list[Bytes] = []
        self._size = 0  # of what nobody waits for
        self._waited_for: list[Outgoing] = []
        self._credit = 0  # for what is waited for

    def add(self, sequence: int, batch: Batch, answer: Answer | None) -> None:
        """Take a batch along; it is not copied."""
        ledger, stream, records = batch
        size = len(stream)
        part = AppendPart(ledger.shard, sequence, records, size)
        if answer is None:
            self._parts.append(part)
            self._bulk.append(stream.data)
            self._size += size
        else:
            self._waited_for.append(([Kind.APPEND, answer.request, [part]], [stream.data]))
            self._credit += credit_of(size)

    @property
    def credit(self) -> int:
        """What all of it takes of the credit."""
        return self._credit + (credit_of(self._size) if self._parts else 0)

    def messages(self) -> list[Outgoing]:
        """What is to be sent."""
        together: list[Outgoing] = [([Kind.APPEND, 0, self._parts], self._bulk)] if self._parts else []
        return together + self._waited_for


def gathered(
    streams: Mapping[int, tuple[NDArray[np.uint8], int]], serving: Callable[[int], _Where]
) -> Iterator[tuple[_Where, list[Batch]]]:
    """The batches of some shards by the worker that is to have them, as many at a time as a frame takes.

    A long one goes alone, so that workers get theirs in turn.

    :param serving: the worker that serves a shard; raises where none does
    """
    waiting: dict[_Where, list[Batch]] = {}
    for shard, (stream, records) in streams.items():
        process = serving(shard)
        together = waiting.setdefault(process, [])
        size = sum(len(each.stream) for each in together) + len(stream)
        if together and (size > process.frame_room or len(together) == TOGETHER_MAX):
            yield process, together
            together = waiting[process] = []
        together.append(Batch(process.ledgers[shard], stream, records))
    yield from waiting.items()
