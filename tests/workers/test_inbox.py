"""The inbox of a worker: requests keep their order, and none is lost to a time or the end of the pipe."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pipe_pairs import PATIENCE_S, ends

from siltstone_workers.inbox import Inbox
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone_workers.sender import Sender


@contextmanager
def connected() -> Iterator[tuple[Sender, Inbox]]:
    """Who sends, and the inbox that it comes to."""
    with ends() as both:
        yield both.sender, Inbox(both.receiver)


def test_requests_come_in_their_order() -> None:
    with connected() as (sender, inbox):
        for number in range(50):
            sender.send([Kind.FLUSH, number])
        for number in range(50):
            message = inbox.next_request(PATIENCE_S)
            assert message is not None
            assert message.fields == [Kind.FLUSH, number]
        assert inbox.next_request(0.0) is None


def test_nothing_within_the_time_is_none_and_loses_nothing() -> None:
    with connected() as (sender, inbox):
        assert inbox.next_request(0.0) is None
        assert inbox.next_request(0.01) is None
        sender.send([Kind.FLUSH, 1])
        message = inbox.next_request(0.0)
        assert message is not None
        assert message.fields == [Kind.FLUSH, 1]


def test_requests_that_came_before_the_end_are_still_given_out() -> None:
    with connected() as (sender, inbox):
        sender.send([Kind.FLUSH, 1])
        sender.close()
        message = inbox.next_request(PATIENCE_S)
        assert message is not None
        assert message.fields == [Kind.FLUSH, 1]
        for _ in range(2):
            with pytest.raises(ChannelClosedError):
                inbox.next_request(PATIENCE_S)
