"""For how long a wait goes on without sleep: for what comes soon, and not for what does not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone_workers.answers import Answers
from siltstone_workers.inbox import Inbox
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import Message, make_pipe
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender
from siltstone_workers.waiting import AWAKE_MAX, Awake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON, LATE = AWAKE_MAX / 10, 100 * AWAKE_MAX


def after(*waits: float) -> float:
    awake = Awake()
    for seconds in waits:
        awake.took(seconds)
    return awake.seconds


def test_what_comes_soon_is_looked_for_a_little_longer_than_it_takes() -> None:
    assert SOON < after(*[SOON] * 100) < 4 * SOON


def test_what_comes_late_is_not_looked_for() -> None:
    assert after(*[LATE] * 100) == 0.0


def test_one_that_comes_late_does_not_change_it_for_long() -> None:
    assert after(*[SOON] * 100, 3600.0, *[SOON] * 10) > SOON


@given(st.lists(st.floats(0.0, 1e6)))
def test_it_is_never_looked_for_long(waits: list[float]) -> None:
    assert 0.0 <= after(*waits) <= AWAKE_MAX


class WatchedAwake(Awake):
    """Notes for how long each wait was to be without sleep."""

    def __init__(self, looks: list[float]) -> None:
        super().__init__()
        self._looks = looks

    def wait(self, first: int, second: int, seconds: float) -> int:
        self._looks.append(self.seconds)
        return super().wait(first, second, seconds)


class Watched:
    """A receiver, and for how long each of its waits was to be without sleep."""

    def __init__(self, receiver: Receiver, looks: list[float]) -> None:
        self._receiver = receiver
        self._looks = looks

    def receive(self, timeout: float | None = None, awake: Awake | None = None) -> Message | None:
        if timeout != 0:
            self._looks.append(0.0 if awake is None else awake.seconds)
        return self._receiver.receive(timeout, awake)


def in_turn(send: Callable[[int], None], receive: Callable[[], Any], times: int, pause: float) -> None:
    """Receive what another thread sends after a pause each time."""
    for number in range(times):
        sending = threading.Timer(pause, send, [number])
        sending.start()
        receive()
        sending.join()


def test_answers_that_take_long_are_slept_through() -> None:
    looks: list[float] = []
    reading, writing = make_pipe()
    sender, receiver = Sender(writing), Receiver(reading)
    waiting = Answers(receiver, -1, lambda error: pytest.fail(str(error)))
    waiting.heard = lambda _number, _shards: None
    waiting.awake = WatchedAwake(looks)
    expected = [waiting.expect() for _number in range(30)]
    unread = iter(expected)
    try:
        in_turn(
            lambda number: sender.send([Kind.REPLY, expected[number].request, None, number + 1, []]),
            lambda: waiting.wait(next(unread), 20.0),
            len(expected),
            3 * AWAKE_MAX,
        )
        assert looks[0] > 0.0
        assert looks[-1] == 0.0
        # To look whether one is there says nothing of how long they take.
        last = waiting.expect()
        for _look in range(100):
            assert not waiting.wait(last, 0.0)
        del looks[:]
        sender.send([Kind.REPLY, last.request, None, 99, []])
        assert waiting.wait(last, 20.0)
        assert looks[0] == 0.0
    finally:
        sender.close()
        receiver.close()


class Asked:
    """An inbox, who sends to it, and for how long each of its waits was to be without sleep."""

    def __init__(self, sender: Sender, inbox: Inbox, looks: list[float]) -> None:
        self.sender, self.inbox, self.looks = sender, inbox, looks


@pytest.fixture
def asked() -> Iterator[Asked]:
    reading, writing = make_pipe()
    sender, receiver = Sender(writing), Receiver(reading)
    looks: list[float] = []
    yield Asked(sender, Inbox(Watched(receiver, looks)), looks)  # type: ignore[arg-type]
    sender.close()
    receiver.close()


def test_a_worker_that_is_asked_seldom_sleeps_at_once(asked: Asked) -> None:
    sender, inbox, looks = asked.sender, asked.inbox, asked.looks
    in_turn(
        lambda number: sender.send([Kind.FLUSH, number]),
        lambda: inbox.next_request(20.0),
        30,
        3 * AWAKE_MAX,
    )
    assert looks[0] > 0.0
    assert looks[-1] == 0.0
    # To look whether there is one says nothing of how long they take.
    for _look in range(100):
        assert inbox.next_request(0.0) is None
    del looks[:]
    sender.send([Kind.FLUSH, 1])
    assert inbox.next_request(20.0) is not None
    assert looks[0] == 0.0


def test_a_worker_that_is_sent_much_at_a_time_sleeps_in_between(asked: Asked) -> None:
    # What comes soon is looked for; only behind much it is not.
    much = bytes(100_000)
    for bulk, is_looked_for in [(b"", True), (much, True), (much, False), (b"", False), (b"", True)]:
        asked.sender.send([Kind.APPEND, 0], bulk)
        assert asked.inbox.next_request(20.0) is not None
        assert (asked.looks[-1] > 0.0) == is_looked_for
