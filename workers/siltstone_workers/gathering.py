"""Batches on their way to workers: those of shards that one worker has travel together, as far as a frame takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from siltstone_workers.kinds import Kind
from siltstone_workers.messages import AppendPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
    ledgers: dict[int, Ledger]


_Where = TypeVar("_Where", bound=Destination)


def messages_of(sent: Sequence[tuple[int, Batch, Answer | None]]) -> list[Outgoing]:
    """The messages that carry batches to one worker; nothing is copied.

    Those that nobody waits for travel in one, each other one in its own.

    :param sent: for each its sequence, the batch, and the answer that somebody waits for
    """
    together: list[AppendPart] = []
    bulk: list[Bytes] = []
    alone: list[Outgoing] = []
    for sequence, (ledger, stream, records), answer in sent:
        size = len(stream)
        part = AppendPart(ledger.shard, sequence, records, size)
        if answer is None:
            together.append(part)
            bulk.append(stream.data)
        else:
            alone.append(([Kind.APPEND, answer.request, [part]], [stream.data]))
    if not together:
        return alone
    return [([Kind.APPEND, 0, together], bulk), *alone]


def gathered(
    streams: Mapping[int, tuple[NDArray[np.uint8], int]], serving: Callable[[int], _Where]
) -> Iterator[tuple[_Where, list[Batch]]]:
    """The batches of some shards by the worker that is to have them, as many at a time as a frame takes.

    A long one goes alone, so that workers get theirs in turn.

    :param serving: the worker that serves a shard; raises where none does
    """
    waiting: dict[_Where, list[Batch]] = {}
    sizes: dict[_Where, int] = {}
    for shard, (stream, records) in streams.items():
        process = serving(shard)
        together = waiting.setdefault(process, [])
        size = sizes.get(process, 0) + len(stream)
        if together and (size > process.frame_room or len(together) == TOGETHER_MAX):
            yield process, together
            together, size = [], len(stream)
            waiting[process] = together
        sizes[process] = size
        together.append(Batch(process.ledgers[shard], stream, records))
    yield from waiting.items()
