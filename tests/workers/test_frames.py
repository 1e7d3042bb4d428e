"""Frames: what goes in comes out; what breaks a rule is refused, says which, and costs little."""

from __future__ import annotations

import re
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipe_pairs import bare_writer

from siltstone.errors import ProtocolError
from siltstone_workers import frames
from siltstone_workers.decoding import Assembler, decode_body
from siltstone_workers.encoding import encode_frame
from siltstone_workers.frames import (
    BULK_MAX,
    DEPTH_MAX,
    DROP,
    MESSAGE_MAX,
    PART,
    PREFIX_SIZE,
    VALUE_MAX,
    frame_length,
    pack_value,
    unpack_value,
)
from siltstone_workers.pipes import ChannelClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: text as Python has it, which names of files that are no UTF-8 are as well
TEXT = st.text(st.characters(codec=None, categories=None), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.integers(0, 99), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.tuples(st.integers(2, 255), st.lists(VALUES, max_size=5)).map(lambda both: [both[0], *both[1]])


def body_of(message: list[Any], bulk: bytes | None = None) -> memoryview:
    return memoryview(b"".join(bytes(piece) for piece in encode_frame(message, bulk))[PREFIX_SIZE:])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


# ---- round trips


@given(MESSAGES, st.none() | st.binary(max_size=100_000))
def test_a_frame_carries_a_message_and_its_bulk(message: list[Any], bulk: bytes | None) -> None:
    whole = b"".join(bytes(piece) for piece in encode_frame(message, bulk))
    assert frame_length(whole[:PREFIX_SIZE], 1 << 20) == len(whole) - PREFIX_SIZE
    found, found_bulk = decode_body(memoryview(whole)[PREFIX_SIZE:])
    assert found == message
    assert (None if found_bulk is None else bytes(found_bulk)) == bulk


@given(VALUES)
def test_a_value_travels_as_bulk(value: Any) -> None:
    assert unpack_value(memoryview(pack_value(value))) == value


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6), st.integers(0, 3))
def test_parts_make_one_bulk_and_dropped_parts_make_none(pieces: list[bytes], dropped: int) -> None:
    assembler = Assembler()
    for _ in range(dropped):
        assert assembler.take(body_of([PART], b"lost")) is None
    assert assembler.take(body_of([DROP])) is None
    for piece in pieces[:-1]:
        assert assembler.take(body_of([PART], piece)) is None
    found = assembler.take(body_of([9, 1], pieces[-1]))
    assert found is not None
    assert found[0] == [9, 1]
    assert found[1] is not None
    assert bytes(found[1]) == b"".join(pieces)
    # And nothing of it is left for the next.
    assert assembler.take(body_of([9, 2])) == ([9, 2], None)


def _forms() -> Iterator[bytes]:
    """A value of every form that msgpack has, but for extensions."""
    for code in range(0x100):
        first = bytes([code])
        if code <= 0x7F or code >= 0xE0 or code in (0xC0, 0xC2, 0xC3):
            yield first
        elif code <= 0x8F:
            yield first + b"".join(bytes([key, 0xC0]) for key in range(code & 0x0F))
        elif code <= 0x9F:
            yield first + b"\xa1x" * (code & 0x0F)
        elif code <= 0xBF:
            yield first + b"y" * (code & 0x1F)
        elif code in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
            size = 1 << (code - (0xC4 if code < 0xD0 else 0xD9))
            for length in (0, 1, 200, 0 if size == 1 else 20_000):
                yield first + length.to_bytes(size, "big") + b"z" * length
        elif code in (0xCA, 0xCB, *range(0xCC, 0xD4)):
            size = 4 << (code - 0xCA) if code < 0xCC else 1 << (code & 3)
            yield first + b"\x40" * size
        elif code >= 0xDC:
            for length in (0, 1, 15, 200):
                items = [bytes([0xCC, key]) for key in range(length)]
                yield (
                    first
                    + length.to_bytes(2 << (code & 1), "big")
                    + b"".join(each + b"\xc4\x01b" if code >= 0xDE else each for each in items)
                )


@pytest.mark.parametrize("form", [pytest.param(form, id=form[:6].hex()) for form in _forms()])
def test_a_value_of_any_form_ends_where_it_does(form: bytes) -> None:
    message = b"\x93\x09" + form + form
    expected = msgpack.unpackb(form, strict_map_key=False)
    assert decode_body(memoryview(message)) == ([9, expected, expected], None)
    fields, bulk = decode_body(memoryview(message + b"\xc6\x00\x00\x00\x04bulk"))
    assert fields == [9, expected, expected]
    assert bulk == b"bulk"
    # And nothing beyond its end is looked at, where it is cut off.
    for cut in {1, len(form) // 2, len(form) - 1} - {0}:
        with pytest.raises(ProtocolError):
            decode_body(memoryview(message[: len(message) - cut]))


def test_bulk_is_neither_copied_in_nor_out() -> None:
    bulk = bytearray(b"before")
    pieces = encode_frame([9], bulk)
    bulk[:] = b"behind"
    body = bytearray(b"".join(bytes(piece) for piece in pieces)[PREFIX_SIZE:])
    _message, found = decode_body(memoryview(body))
    body[-6:] = b"at all"
    assert found is not None
    assert bytes(found) == b"at all"
    assert bytes(pieces[-1]) == b"behind"


# ---- limits


def test_the_longest_message_passes_and_one_byte_more_does_not() -> None:
    head = len(msgpack.packb([9, b"x" * 1000])) - 1000
    longest = [9, b"x" * (MESSAGE_MAX - head)]
    assert decode_body(body_of(longest)) == (longest, None)
    assert decode_body(body_of(longest, b"bulk"))[1] == b"bulk"
    with pytest.raises(ProtocolError) as caught:
        encode_frame([9, b"x" * (MESSAGE_MAX - head + 1)])
    assert caught.value.rule == "message size"


@pytest.mark.parametrize("length", [1, 77, 16384])
def test_a_length_up_to_the_limit_passes(length: int) -> None:
    assert frame_length(struct.pack(">I", length), 16384) == length


def test_lists_and_maps_as_deep_and_as_long_as_they_may_be_pass() -> None:
    deepest = [9, nested(DEPTH_MAX - 1)]
    assert decode_body(body_of(deepest))[0] == deepest
    assert unpack_value(memoryview(pack_value(nested(DEPTH_MAX)))) == nested(DEPTH_MAX)
    longest = [9, [0] * 1024, dict.fromkeys(range(256), 0)]
    assert decode_body(body_of(longest))[0] == longest


@pytest.mark.parametrize(
    "value",
    [nested(DEPTH_MAX + 1), {"a": [{"b": nested(DEPTH_MAX)}]}, tuple(nested(DEPTH_MAX)), b"x" * VALUE_MAX],
)
def test_what_the_other_end_would_refuse_is_not_packed(value: Any) -> None:
    with pytest.raises(ValueError, match=r"more than|at most"):
        pack_value([value])


def test_a_value_that_holds_itself_many_times_is_refused_at_once() -> None:
    value: list[Any] = []
    value += [value] * 100
    with pytest.raises(ValueError, match="in one another"):
        pack_value(value)


def test_bulk_in_parts_has_a_limit() -> None:
    assembler = Assembler()
    part = body_of([PART], bytes(BULK_MAX // 4))
    for _ in range(4):
        assert assembler.take(part) is None
    with pytest.raises(ProtocolError) as caught:
        assembler.take(body_of([9], b"x"))
    assert caught.value.rule == "bulk size"


# ---- what breaks a rule


def _part_after(message: list[Any], bulk: bytes | None) -> Callable[[], Any]:
    def act() -> None:
        assembler = Assembler()
        assembler.take(body_of([PART], b"begun"))
        assembler.take(body_of(message, bulk))

    return act


def _too_much() -> None:
    assembler = Assembler()
    part = body_of([PART], bytes(BULK_MAX // 2))
    for _ in range(3):
        assembler.take(part)


def _body(data: bytes) -> Callable[[], Any]:
    return lambda: decode_body(memoryview(data))


def _value(data: bytes | None) -> Callable[[], Any]:
    return lambda: unpack_value(None if data is None else memoryview(data))


BAD = [
    ("message size", "a long message", lambda: encode_frame([9, "x" * MESSAGE_MAX])),
    ("frame size", "nothing", lambda: frame_length(bytes(4), 16384)),
    ("frame size", "one more", lambda: frame_length(struct.pack(">I", 16385), 16384)),
    ("frame size", "4 GiB", lambda: frame_length(b"\xff" * 4, 16384)),
    ("message", "no bytes", _body(b"")),
    ("message", "cut off", _body(msgpack.packb([9, "text"])[:-1])),
    ("message", "longer than a message may be", _body(msgpack.packb([9, bytes(MESSAGE_MAX)]))),
    ("message", "a byte that msgpack does not have", _body(b"\x91\xc1")),
    ("message", "no list", _body(msgpack.packb({9: 1}))),
    ("message", "no kind", _body(b"\x90")),
    ("message", "a kind in words", _body(msgpack.packb(["APPEND"]))),
    ("message", "a kind that is a flag", _body(msgpack.packb([True]))),
    ("message", "text that is no UTF-8", _body(b"\x92\x09\xa2\xff\xfe")),
    ("message", "an extension", _body(b"\x92\x09\xc7\x01\x05\x00")),
    ("message", "an empty extension", _body(b"\x92\x09\xc7\x00\x05")),
    ("message", "a time", _body(b"\x92\x09\xd6\xff\x00\x00\x00\x00")),
    ("message", "a list as a key", _body(b"\x92\x09\x81\x90\x00")),
    ("message", "a map as a key", _body(b"\x92\x09\x81\x80\x00")),
    ("message", "1025 items", _body(msgpack.packb([9, [0] * 1025]))),
    ("message", "257 keys", _body(msgpack.packb([9, dict.fromkeys(range(257), 0)]))),
    ("message", "a list that claims more than there is", _body(b"\x92\x09\xdd\xff\xff\xff\xff")),
    ("message", "a map that claims more than there is", _body(b"\x92\x09\xdf\xff\xff\xff\xff")),
    ("message", "text that claims more than there is", _body(b"\x92\x09\xdb\xff\xff\xff\xff")),
    ("depth", "lists without end", _body(b"\x91" * MESSAGE_MAX)),
    ("message", "a few lists without end", _body(b"\x91" * DEPTH_MAX)),
    ("depth", "one list too deep", _body(msgpack.packb([9, nested(DEPTH_MAX)]))),
    ("depth", "a thousand lists", _body(b"\x91" * 1000 + b"\x09")),
    ("depth", "maps", _body(b"\x92\x09" + b"\x81\x00" * DEPTH_MAX + b"\x00")),
    ("kind", "256", _body(msgpack.packb([256]))),
    ("kind", "-1", _body(msgpack.packb([-1]))),
    ("bulk", "a second message", _body(msgpack.packb([9]) * 2)),
    ("bulk", "another kind of bin", _body(msgpack.packb([9]) + msgpack.packb(bytes(10)))),
    ("bulk", "half a head", _body(msgpack.packb([9]) + b"\xc6\x00\x00\x00")),
    ("bulk", "less than it says", _body(msgpack.packb([9]) + b"\xc6\x00\x00\x00\x02x")),
    ("bulk", "more than it says", _body(msgpack.packb([9]) + b"\xc6\x00\x00\x00\x01xx")),
    ("part", "a part without bulk", lambda: Assembler().take(body_of([PART]))),
    ("part", "an empty part", lambda: Assembler().take(body_of([PART], b""))),
    ("part", "a message without bulk behind a part", _part_after([9], None)),
    ("part", "a message with empty bulk behind a part", _part_after([9], b"")),
    ("bulk size", "more than may be put together", _too_much),
    ("value", "none", _value(None)),
    ("value", "cut off", _value(msgpack.packb([1, 2])[:-1])),
    ("value", "two", _value(b"\x01\x02")),
    ("value", "an extension", _value(b"\xc7\x00\x05")),
    ("value", "text that is no UTF-8", _value(b"\xa1\xff")),
    ("value", "a list that claims 4 G items", _value(b"\xdd\xff\xff\xff\xff")),
    ("value size", "no bytes", _value(b"")),
    ("value size", "too many bytes", _value(bytes(VALUE_MAX + 1))),
    ("depth", "a value too deep", _value(b"\x91" * DEPTH_MAX + b"\x90")),
]


@pytest.mark.parametrize(("rule", "what", "act"), BAD, ids=[f"{rule}-{what}" for rule, what, _act in BAD])
def test_what_breaks_a_rule_is_refused_by_its_name(rule: str, what: str, act: Callable[[], Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        act()
    assert caught.value.rule == rule
    assert len(str(caught.value)) < 500
    # It is told to others, and kept.
    assert type(caught.value.to_keep()) is ProtocolError


def test_every_rule_of_a_frame_is_broken_above() -> None:
    sources = Path(frames.__file__), Path(frames.__file__).with_name("decoding.pyx")
    named = {rule for source in sources for rule in re.findall(r'rule="([^"]+)"', source.read_text())}
    assert named == {rule for rule, _what, _act in BAD}


# ---- what it costs

COSTLY = [
    b"\x92\x09" + b"\xdc\x04\x00" * 1000,
    b"\x92\x09" + b"\xde\x01\x00\x01" * 1000,
    b"\xdc\x10\x00" * 4000,
    b"\x92\x09" + b"\xdd\x00\x00\x04\x00" * 900,
    b"\x92\x09" + b"\xc6\x7f\xff\xff\xff" * 2000,
]


@pytest.mark.parametrize("data", COSTLY, ids=range(len(COSTLY)))
def test_what_a_message_claims_to_have_takes_a_few_mib_at_most(data: bytes) -> None:
    assert peak_of(_body(data)) < 12 << 20


@pytest.mark.parametrize(
    "data", [b"\xdd\x00\x3f\xff\xf0" * 1000 + bytes(VALUE_MAX - 5000), b"\xdd\x00\x3f\x00\x00" * 1000]
)
def test_what_a_value_claims_to_have_takes_no_memory(data: bytes) -> None:
    assert peak_of(_value(data)) < 8 * VALUE_MAX


def test_what_is_shown_of_a_bad_value_is_short() -> None:
    assert peak_of(_value(b"\x01" + bytes(VALUE_MAX - 1))) < 3 * VALUE_MAX


def peak_of(act: Callable[[], Any]) -> int:
    """The most memory that a refusal takes at once [bytes]."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- anything at all


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for read in (decode_body, unpack_value):
        with suppress(ProtocolError):
            read(memoryview(data))


@st.composite
def streams(draw: Any) -> bytes:
    """Frames one after another, some changed here and there."""
    whole = bytearray()
    for _ in range(draw(st.integers(1, 4))):
        message = draw(MESSAGES | st.just([PART]) | st.just([DROP]))
        whole += b"".join(
            bytes(each) for each in encode_frame(message, draw(st.none() | st.binary(max_size=60)))
        )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(whole) - 1))
        change = draw(st.sampled_from(["set", "cut", "insert"]))
        if change == "set":
            whole[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del whole[at : at + draw(st.integers(1, 8))]
        else:
            whole[at:at] = draw(st.binary(min_size=1, max_size=8))
        if not whole:
            break
    return bytes(whole)


@given(streams() | st.binary(max_size=300))
def test_any_bytes_in_a_pipe_end_in_messages_or_a_broken_rule(data: bytes) -> None:
    with bare_writer() as bare:
        bare.write(data)
        bare.end()
        with pytest.raises((ProtocolError, ChannelClosedError)):
            while True:
                message = bare.receiver.receive()
                assert message is not None
                assert message.fields[0] not in (PART, DROP)
