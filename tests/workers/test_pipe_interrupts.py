"""Signals and interrupts: whatever a handler raises, wherever, no message is lost, torn or taken for another."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from pipe_pairs import Task, bare_writer, ends, frame, pattern, pipe
from worker_stores import ends_within

from siltstone.errors import ProtocolError
from siltstone_workers import frames
from siltstone_workers.pipes import ChannelClosedError
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender
from siltstone_workers.waiting import Awake

KIB = 1024

# ---- interrupts


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupt_in_a_write_leaves_nothing_to_be_misunderstood(after: int) -> None:
    def handle(*_what: Any) -> None:
        raise KeyboardInterrupt

    with ends(4 * KIB) as both:
        for number in range(after):
            both.sender.send([9, number])
        before = signal.signal(signal.SIGALRM, handle)
        try:
            # The pipe takes a part of it, and nobody reads.
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                both.sender.send([9, "interrupted"], bytes(50 * KIB))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        for _ in range(2):
            with pytest.raises(ChannelClosedError):
                both.sender.send([9, "behind it"])
        assert both.sender.sent == after
        both.sender.close()
        for number in range(after):
            assert both.receiver.receive() == ([9, number], None)
        with pytest.raises(ProtocolError):
            both.receiver.receive()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_message_that_was_given_up_between_its_parts_is_dropped(parts: int) -> None:
    class Interrupted(Sender):
        left = parts

        def write(self, pieces: list[Any], messages: int) -> None:
            self.left -= 1
            if self.left == -1:
                raise KeyboardInterrupt
            super().write(pieces, messages)

    reading, writing = pipe(1024 * KIB)
    sender, receiver = Interrupted(writing), Receiver(reading)
    try:
        with pytest.raises(KeyboardInterrupt):
            sender.send([9, "lost"], bytes(900 * KIB))
        task = Task(lambda: sender.send([9, "next"], pattern(300 * KIB)))
        message = receiver.receive()
        task.result()
        assert message is not None
        assert message.fields == [9, "next"]
        assert message.bulk is not None
        assert bytes(message.bulk) == pattern(300 * KIB)
    finally:
        sender.close()
        receiver.close()


# ---- signals


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError, Exception])
def test_a_handler_that_raises_takes_no_message_away(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """A handler runs wherever the next bytecode does: here while a message is made of its bytes."""
    usual, raises = frames._unpack_message, iter([error("from a handler")])

    def unpackb(*what: Any, **how: Any) -> Any:
        for each in raises:
            raise each
        return usual(*what, **how)

    monkeypatch.setattr(frames, "_unpack_message", unpackb)
    with bare_writer() as writer:
        writer.write(frame([9, 1], b"bulk") + frame([9, 2]))
        with pytest.raises(error, match="from a handler"):
            writer.receiver.receive()
        assert writer.receiver.has_buffered
        message = writer.receiver.receive(0.0)
        assert message is not None
        assert message.fields == [9, 1]
        assert writer.receiver.receive(0.0) == ([9, 2], None)


def test_a_signal_while_it_looks_without_sleep_is_handled_before_it_sleeps() -> None:
    def handle(*_what: Any) -> None:
        raise InterruptedError("from a handler")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with bare_writer() as writer, ends_within(0.0):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedError, match="from a handler"):
                writer.receiver.receive(60.0, Awake(1.0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
