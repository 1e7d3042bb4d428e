"""Pipes: messages of any size come through whole and in order, or the channel says why and sends nothing more."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipe_pairs import Task, bare_writer, ends, frame, pattern, wait_readable

from siltstone.errors import ProtocolError
from siltstone_workers import pipes
from siltstone_workers.frames import DROP, FRAME_MIN, PART, PREFIX_SIZE
from siltstone_workers.pipes import ChannelClosedError, SilentError, frame_limit, make_pipe, pipe_size

KIB = 1024
SIZES = [4 * KIB, 64 * KIB, 1024 * KIB]


# ---- sizes


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_every_size_come_through_in_order(size: int) -> None:
    with ends(size) as both:
        limit = frame_limit(both.writing)
        lengths = [0, 1, 4095, 4097, 65531, 65536, limit - 1, limit, limit + 1, 3 * limit, 2_000_003]

        def send() -> None:
            for number, length in enumerate(lengths):
                both.sender.send([9, number], pattern(length))
                both.sender.send([10, number])

        task = Task(send)
        for number, length in enumerate(lengths):
            message = both.receiver.receive()
            assert message is not None
            assert message.fields == [9, number]
            assert message.bulk is not None
            assert bytes(message.bulk) == pattern(length)
            assert both.receiver.receive() == ([10, number], None)
        task.result()


@given(
    st.lists(
        st.tuples(st.integers(0, 256 * KIB), st.integers(0, 12), st.booleans()), min_size=12, max_size=24
    )
)
def test_bulk_stays_as_it_is_for_as_long_as_somebody_has_it(messages: list[tuple[int, int, bool]]) -> None:
    """Also a part of it, or an array over it: what comes later lies elsewhere."""
    held: dict[int, tuple[object, bytes]] = {}
    with ends(1024 * KIB) as both:
        for number, (length, dropped, as_array) in enumerate(messages):
            bulk = bytes([number]) * length
            task = Task(lambda number=number, bulk=bulk: both.sender.send([9, number], bulk))
            message = both.receiver.receive()
            task.result()
            assert message is not None
            assert message.bulk is not None
            part = message.bulk[length // 2 :]
            held[number] = (
                np.frombuffer(part, np.uint8) if as_array and length else part,
                bulk[length // 2 :],
            )
            del message, part
            held.pop(dropped, None)
            for kept, expected in held.values():
                assert bytes(kept) == expected  # type: ignore[call-overload]


def test_a_pipe_is_made_as_large_as_may_be_and_inherited_by_nobody() -> None:
    pair = make_pipe()
    try:
        assert pipe_size(pair[0]) >= 64 * KIB
        assert frame_limit(pair[1]) >= FRAME_MIN
        assert not any(map(os.get_inheritable, pair))
    finally:
        for end in pair:
            os.close(end)


def test_a_pipe_beyond_what_the_system_allows_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipes.fcntl.fcntl

    def limited(descriptor: int, command: int, value: int = 0) -> int:
        if command == pipes.fcntl.F_SETPIPE_SZ and value > 128 * KIB:
            raise PermissionError
        return real(descriptor, command, value)

    monkeypatch.setattr(pipes.fcntl, "fcntl", limited)
    pair = make_pipe()
    try:
        assert pipe_size(pair[1]) == 128 * KIB
    finally:
        for end in pair:
            os.close(end)


# ---- several senders


@pytest.mark.parametrize("size", [4 * KIB, 1024 * KIB])
def test_messages_of_several_threads_stay_whole_and_in_each_threads_order(size: int) -> None:
    senders, each = 4, 12
    with ends(size) as both:

        def send(who: int) -> None:
            for number in range(each):
                length = 150_000 if number % 4 == 3 else 10 * number
                both.sender.send([9, who, number], bytes([who]) * length)

        tasks = [Task(lambda who=who: send(who)) for who in range(senders)]
        seen: dict[int, list[int]] = {who: [] for who in range(senders)}
        for _ in range(senders * each):
            message = both.receiver.receive()
            assert message is not None
            _kind, who, number = message.fields
            seen[who].append(number)
            assert message.bulk is not None
            assert bytes(message.bulk) == bytes([who]) * (150_000 if number % 4 == 3 else 10 * number)
        for task in tasks:
            task.result()
        assert seen == {who: list(range(each)) for who in range(senders)}


# ---- reading in pieces


@pytest.mark.parametrize(
    "whole", [frame([9, 1]), frame([9, 2], b"bulk"), frame([PART], b"a") + frame([9], b"b")]
)
def test_nothing_is_lost_where_the_time_is_too_short_at_any_byte(whole: bytes) -> None:
    with bare_writer() as writer:
        for byte in whole[:-1]:
            writer.write(bytes([byte]))
            assert writer.receiver.receive(0.0) is None
            # And again: it is still there.
            assert writer.receiver.receive(0.0) is None
        writer.write(whole[-1:])
        message = writer.receiver.receive(0.0)
        while message is None:
            message = writer.receiver.receive(0.0)
        assert message.fields[0] == 9


def test_a_long_frame_that_stops_in_the_middle_holds_up_nobody() -> None:
    whole = frame([9], pattern(200 * KIB))
    with bare_writer(1024 * KIB) as writer:
        for at in range(0, len(whole), 30_000):
            assert writer.receiver.receive(0.0) is None
            writer.write(whole[at : at + 30_000])
        message = writer.receiver.receive(10.0)
        assert message is not None
        assert message.bulk is not None
        assert bytes(message.bulk) == pattern(200 * KIB)


def test_parts_without_end_do_not_keep_a_reader_beyond_its_time() -> None:
    with bare_writer(1024 * KIB) as writer:
        writer.write(frame([DROP]) * 100 + frame([9]))
        for _ in range(100):
            assert writer.receiver.receive(0.0) is None
        assert writer.receiver.receive(0.0) == ([9], None)


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_a_stream_cut_anywhere_gives_the_same_messages(cuts: list[int], lengths: list[int]) -> None:
    whole = b"".join(frame([9, length], pattern(length)) for length in lengths)
    found = []
    with bare_writer() as writer:
        for cut in [*cuts, len(whole)]:
            writer.write(whole[:cut])
            whole = whole[cut:]
            while message := writer.receiver.receive(0.0):
                found.append(message)
    assert [message.fields for message in found] == [[9, length] for length in lengths]
    assert [bytes(message.bulk or b"") for message in found] == [pattern(length) for length in lengths]


def test_what_was_read_ahead_is_known_to_be_there() -> None:
    with bare_writer() as writer:
        assert not writer.receiver.has_buffered
        writer.write(frame([9, 1]) + frame([9, 2]) + frame([9, 3])[:-1])
        assert writer.receiver.receive() == ([9, 1], None)
        assert writer.receiver.has_buffered
        assert writer.receiver.receive(0.0) == ([9, 2], None)
        # Not the third: its last byte is missing.
        assert not writer.receiver.has_buffered
        writer.write(frame([9, 3])[-1:])
        assert writer.receiver.receive() == ([9, 3], None)


def test_a_length_that_is_forbidden_is_known_to_be_there() -> None:
    with bare_writer() as writer:
        writer.write(frame([9, 1]) + b"\xff\xff\xff\xff")
        assert writer.receiver.receive() == ([9, 1], None)
        # Else whoever waits for more would not come to see it.
        assert writer.receiver.has_buffered
        with pytest.raises(ProtocolError):
            writer.receiver.receive()


# ---- the other end is gone


def test_the_end_of_a_pipe_between_frames_is_its_end() -> None:
    with bare_writer() as writer:
        writer.write(frame([9]))
        writer.end()
        assert writer.receiver.receive() == ([9], None)
        for timeout in (None, 0.0):
            with pytest.raises(ChannelClosedError):
                writer.receiver.receive(timeout)


@pytest.mark.parametrize("kept", [1, PREFIX_SIZE, PREFIX_SIZE + 1, 70_000, 150_000])
def test_the_end_of_a_pipe_inside_a_frame_breaks_a_rule(kept: int) -> None:
    with bare_writer(1024 * KIB) as writer:
        writer.write(frame([9], pattern(200 * KIB))[:kept])
        writer.end()
        with pytest.raises(ProtocolError) as caught:
            writer.receiver.receive()
        assert caught.value.rule == "whole frames"


@pytest.mark.parametrize("length", [0, FRAME_MIN + 1, 0xFFFFFFFF])
def test_a_frame_of_a_forbidden_length_is_refused_before_it_comes(length: int) -> None:
    with bare_writer(4 * KIB) as writer:
        writer.write(struct.pack(">I", length))
        with pytest.raises(ProtocolError) as caught:
            writer.receiver.receive()
        assert caught.value.rule == "frame size"


def test_a_reader_that_dies_in_the_middle_of_a_frame_ends_the_send() -> None:
    with ends(4 * KIB) as both:
        task = Task(lambda: both.sender.send([9], bytes(100 * KIB)))
        wait_readable(both.receiver.reading)
        both.receiver.close()
        with pytest.raises(ChannelClosedError):
            task.result()
        with pytest.raises(ChannelClosedError):
            both.sender.send([9])


def test_a_writer_whose_reader_takes_nothing_gives_up_and_sends_nothing_more() -> None:
    with ends(4 * KIB, silence=0.2) as both:
        with pytest.raises(SilentError):
            both.sender.send([9], bytes(100 * KIB))
        # Half a frame is in the pipe: what came behind it would be taken for the other half.
        assert os.read(both.receiver.reading, 1 << 20)
        with pytest.raises(ChannelClosedError):
            both.sender.send([9])
        both.sender.close()
        assert os.read(both.receiver.reading, 1) == b""


def test_a_reader_that_takes_little_at_a_time_gets_all_of_it() -> None:
    whole = frame([9], pattern(15 * KIB))
    with ends(4 * KIB, silence=10.0) as both:
        task = Task(lambda: both.sender.send([9], pattern(15 * KIB)))
        found = b""
        while len(found) < len(whole):
            wait_readable(both.receiver.reading)
            found += os.read(both.receiver.reading, 700)
        task.result()
    assert found == whole


# ---- closing


def test_a_closed_end_neither_sends_nor_receives() -> None:
    with ends() as both:
        both.sender.send([9])
        both.sender.close()
        both.sender.close()
        with pytest.raises(ChannelClosedError):
            both.sender.send([9])
        both.receiver.close()
        both.receiver.close()
        for timeout in (None, 0.0):
            with pytest.raises(ChannelClosedError):
                both.receiver.receive(timeout)


def test_closing_waits_for_a_send_under_way_and_cuts_nothing_off() -> None:
    with ends(4 * KIB) as both:
        sending = Task(lambda: both.sender.send([9], pattern(100 * KIB)))
        wait_readable(both.receiver.reading)
        closing = Task(both.sender.close)
        message = both.receiver.receive()
        assert message is not None
        assert message.bulk is not None
        assert bytes(message.bulk) == pattern(100 * KIB)
        sending.result()
        closing.result()
        with pytest.raises(ChannelClosedError):
            both.receiver.receive()


# ---- odd messages


def test_bulk_in_more_pieces_than_a_system_call_takes_comes_through() -> None:
    pieces = [bytes([number % 251]) * 20 for number in range(3000)]
    with ends(1 << 20) as both:
        both.sender.send_all([([9], pieces), ([10], pieces[:2])])
        for expected in (pieces, pieces[:2]):
            message = both.receiver.receive(10.0)
            assert message is not None
            assert message.bulk is not None
            assert bytes(message.bulk) == b"".join(expected)


def test_a_message_that_cannot_be_sent_spoils_nothing() -> None:
    with ends(1024 * KIB) as both:
        for bulk in (None, bytes(500 * KIB)):
            with pytest.raises(ProtocolError):
                both.sender.send([9, "x" * 100_000], bulk)
        both.sender.send([9, "short"])
        message = both.receiver.receive()
        assert message == ([9, "short"], None)
