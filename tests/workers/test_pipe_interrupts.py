"""Signals and interrupts: whatever a handler raises, wherever, no message is lost, torn or taken for another."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from pipe_pairs import Task, bare_writer, ends, frame, pattern
from worker_stores import ends_within

from siltstone.errors import ProtocolError
from siltstone_workers import frames, sender
from siltstone_workers.pipes import ChannelClosedError
from siltstone_workers.sender import Sender
from siltstone_workers.waiting import Awake

KIB = 1024

# ---- interrupts


def interrupted_writes(monkeypatch: pytest.MonkeyPatch, after: int, taken: int) -> None:
    """Let the write after the `after`-th take `taken` bytes and be interrupted."""
    real, count = os.writev, iter(range(1_000_000))

    def writev(descriptor: int, pieces: Any) -> int:
        if next(count) != after:
            return real(descriptor, pieces)
        if taken:
            os.write(descriptor, b"".join(bytes(piece) for piece in pieces)[:taken])
        raise KeyboardInterrupt

    monkeypatch.setattr(sender.os, "writev", writev)


@pytest.mark.parametrize("taken", [0, 1, 20])
@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupt_in_a_write_leaves_nothing_to_be_misunderstood(
    monkeypatch: pytest.MonkeyPatch, after: int, taken: int
) -> None:
    with ends(1024 * KIB) as both:
        for number in range(after):
            both.sender.send([9, number])
        with monkeypatch.context() as patch:
            interrupted_writes(patch, 0, taken)
            with pytest.raises(KeyboardInterrupt):
                both.sender.send([9, "interrupted"], bytes(100))
        for _ in range(2):
            with pytest.raises(ChannelClosedError):
                both.sender.send([9, "behind it"])
        both.sender.close()
        for number in range(after):
            assert both.receiver.receive() == ([9, number], None)
        with pytest.raises(ProtocolError if taken else ChannelClosedError):
            both.receiver.receive()


def test_an_interrupt_while_the_pipe_is_full_leaves_nothing_to_be_misunderstood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted:
        def register(self, *_what: Any) -> None:
            pass

        def poll(self, *_what: Any) -> None:
            raise KeyboardInterrupt

    with ends(4 * KIB) as both:
        with monkeypatch.context() as patch:
            patch.setattr(sender.select, "poll", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                both.sender.send([9], bytes(50 * KIB))
        with pytest.raises(ChannelClosedError):
            both.sender.send([9])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_message_that_was_given_up_between_its_parts_is_dropped(
    monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    real = Sender._write

    def write(self: Sender, pieces: Any) -> int:
        nonlocal parts
        parts -= 1
        if parts < 0:
            raise KeyboardInterrupt
        return real(self, pieces)

    with ends(1024 * KIB) as both:
        with monkeypatch.context() as patch:
            patch.setattr(Sender, "_write", write)
            with pytest.raises(KeyboardInterrupt):
                both.sender.send([9, "lost"], bytes(900 * KIB))
        task = Task(lambda: both.sender.send([9, "next"], pattern(300 * KIB)))
        message = both.receiver.receive()
        task.result()
        assert message is not None
        assert message.fields == [9, "next"]
        assert message.bulk is not None
        assert bytes(message.bulk) == pattern(300 * KIB)


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
