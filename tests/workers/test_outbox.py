"""Small batches that wait: they leave whole and in order, and an interrupt of one harms none of the others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from interrupts import Anywhere

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


def test_an_interrupt_anywhere_in_adding_a_batch_leaves_all_of_it_or_nothing() -> None:
    for place in itertools.count(1):
        outbox = Outbox()
        outbox.add(3, 1, stream(1), 1)
        was_interrupted = Anywhere(place).while_(lambda outbox=outbox: outbox.add(3, 2, stream(2), 1))
        added = [1, 2] if outbox.bytes == 11 + 12 else [1]
        assert was_interrupted or added == [1, 2]
        for further in ([], [4]):
            for number in further:
                outbox.add(3, number, stream(number), 1)
            expected = b"".join(bytes(stream(number)) for number in added + further)
            ((fields, bulk),) = outbox.messages()
            assert fields[2] == [(3, (added + further)[-1], len(added + further), len(expected))], place
            assert list(map(bytes, bulk)) == [expected], place
            assert outbox.bytes == len(expected)
        if not was_interrupted:
            break
    assert place > 2


def test_a_batch_added_behind_a_torn_one_begins_where_that_did() -> None:
    for place in itertools.count(1):
        outbox = Outbox()
        outbox.add(3, 1, stream(1), 1)
        was_interrupted = Anywhere(place).while_(lambda outbox=outbox: outbox.add(3, 2, stream(2), 1))
        before = outbox.bytes
        # Nobody has asked what waits in between.
        outbox.add(3, 4, stream(4), 1)
        ((_fields, bulk),) = outbox.messages()
        assert bytes(bulk[0])[before:] == bytes(stream(4)), place
        if not was_interrupted:
            break
