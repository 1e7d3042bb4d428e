"""How batches of several shards travel together: whose, how many, and what a frame takes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import ShardAwayError
from siltstone_workers.answers import Answer
from siltstone_workers.checks import rows
from siltstone_workers.gathering import TOGETHER_MAX, Batch, gathered, messages_of
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import frame_limit, make_pipe
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender

ROOM = 1000


class Process:
    """What is asked of a worker's process here."""

    def __init__(self, shards: range) -> None:
        self.frame_room = ROOM
        self.ledgers: dict[int, Any] = {shard: SimpleNamespace(shard=shard) for shard in shards}


def streams(sizes: list[int]) -> dict[int, tuple[Any, int]]:
    return {shard: (np.full(size, shard, np.uint8), size // 50) for shard, size in enumerate(sizes)}


@given(st.lists(st.integers(0, 2 * ROOM), max_size=80), st.integers(1, 4))
def test_each_batch_goes_once_to_its_own_worker_in_order_and_none_beyond_a_frame_but_alone(
    sizes: list[int], workers: int
) -> None:
    processes = [Process(range(number, len(sizes), workers)) for number in range(workers)]
    sent: dict[int, list[int]] = {number: [] for number in range(workers)}
    sending = gathered(streams(sizes), lambda shard: processes[shard % workers])
    for process, batches in sending:
        assert batches
        assert len(batches) <= TOGETHER_MAX
        assert len(batches) == 1 or sum(len(batch.stream) for batch in batches) <= ROOM
        for batch in batches:
            assert len(batch.stream) == sizes[batch.ledger.shard]
            assert batch.records == sizes[batch.ledger.shard] // 50
            sent[processes.index(process)].append(batch.ledger.shard)  # type: ignore[arg-type]
    assert sent == {number: list(range(number, len(sizes), workers)) for number in range(workers)}


def test_workers_get_long_batches_in_turn() -> None:
    processes = [Process(range(0, 6, 2)), Process(range(1, 6, 2))]
    sending = gathered(streams([ROOM] * 6), lambda shard: processes[shard % 2])
    assert [batches[0].ledger.shard for _process, batches in sending] == [0, 1, 2, 3, 4, 5]


def test_where_a_worker_is_away_that_is_said() -> None:
    process = Process(range(2))

    def serving(shard: int) -> Any:
        if shard == 1:
            raise ShardAwayError("shard 1 is away", shard=1)
        return process

    with pytest.raises(ShardAwayError, match="shard 1"):
        list(gathered(streams([10, 10]), serving))


def test_those_that_nobody_waits_for_are_one_message_and_each_other_has_its_own() -> None:
    process = Process(range(4))
    assert messages_of([]) == []
    waited_for = Answer(7)
    together, alone = messages_of(
        [
            (10 + shard, Batch(process.ledgers[shard], stream, records), waited_for if shard == 1 else None)
            for shard, (stream, records) in streams([100, 150, 200, 250]).items()
        ]
    )
    assert together[0] == [Kind.APPEND, 0, [(0, 10, 2, 100), (2, 12, 4, 200), (3, 13, 5, 250)]]
    assert [bytes(piece) for piece in together[1]] == [bytes(100), b"\2" * 200, b"\3" * 250]
    assert alone[0] == [Kind.APPEND, 7, [(1, 11, 3, 150)]]
    assert [bytes(piece) for piece in alone[1]] == [b"\1" * 150]


@pytest.mark.parametrize("over", [-1, 0, 1, 200_000])
def test_bulk_in_pieces_arrives_whole_in_one_frame_or_in_parts(over: int) -> None:
    reading, writing = make_pipe()
    sender, receiver = Sender(writing), Receiver(reading)
    try:
        # What a short message leaves of a frame is at least the room that is promised.
        assert 0 < frame_limit(writing) - sender.frame_room <= 2048
        size = sender.frame_room + over
        sizes = [size // 3, 0, size - size // 3]
        pieces = [np.full(each, number, np.uint8).data for number, each in enumerate(sizes)]
        parts = [(number, 1, 1, each) for number, each in enumerate(sizes)]
        sender.send_all([([Kind.APPEND, 0, parts], pieces)])
        message = receiver.receive(10.0)
        assert message is not None
        assert rows("batches", message.fields[2], 4) == [list(part) for part in parts]
        assert message.bulk is not None
        assert bytes(message.bulk) == b"".join(bytes(piece) for piece in pieces)
    finally:
        sender.close()
        receiver.close()
