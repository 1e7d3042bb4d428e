"""Small batches that wait: they leave whole and in order, and what cannot be taken harms none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind
from siltstone_workers.outbox import Outbox

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stream(number: int) -> NDArray[np.uint8]:
    return np.full(10 + number, number, np.uint8)


def test_what_waits_is_one_batch_a_shard_in_one_message() -> None:
    outbox = Outbox()
    assert outbox.messages() == []
    assert outbox.credit == 0
    for number, shard in enumerate([3, 5, 3], 1):
        outbox.add(shard, number, stream(number), 2)
    assert outbox.bytes == 11 + 12 + 13
    assert outbox.credit == credit_of(36)
    for _asked in range(2):
        ((fields, bulk),) = outbox.messages()
        assert fields == [Kind.APPEND, 0, [(3, 3, 4, 24), (5, 2, 2, 12)]]
        assert list(map(bytes, bulk)) == [bytes(stream(1)) + bytes(stream(3)), bytes(stream(2))]


class Unreadable:
    """A batch of which the entries cannot be had."""

    def __len__(self) -> int:
        return 12

    @property
    def data(self) -> memoryview:
        raise KeyboardInterrupt


@pytest.mark.parametrize("shard", [3, 5])
def test_what_cannot_be_taken_leaves_what_waits_as_it_was(shard: int) -> None:
    outbox = Outbox()
    outbox.add(3, 1, stream(1), 1)
    with pytest.raises(KeyboardInterrupt):
        outbox.add(shard, 2, Unreadable(), 1)  # type: ignore[arg-type]
    assert outbox.bytes == 11
    outbox.add(3, 4, stream(4), 1)
    ((fields, bulk),) = outbox.messages()
    assert fields[2] == [(3, 4, 2, 25)]
    assert list(map(bytes, bulk)) == [bytes(stream(1)) + bytes(stream(4))]
