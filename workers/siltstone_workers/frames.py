"""Frames on a pipe: a length, a message in msgpack, and records in bulk behind it. Owns all options of msgpack.

| offset | size | what |
| --- | --- | --- |
| 0 | 4 | length of the body, big-endian, at most the limit that both sides agreed on |
| 4 | … | the message: one msgpack array, whose first item is the kind, a whole number |
| … | … | optional: one msgpack bin 32, the bulk; records lie in it packed, as in a journal |

The bulk is the last thing in a frame, so that it is read to where it stays, and written from where it lies. Bulk
that is longer than a frame may be comes in parts: frames of kind :data:`PART` before the one with the message.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgpack

from siltstone_workers.errors import ProtocolError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "BULK_HEAD_SIZE",
    "BULK_MAX",
    "DROP",
    "FRAME_MIN",
    "MESSAGE_MAX",
    "PART",
    "PREFIX_SIZE",
    "Assembler",
    "decode_body",
    "encode_frame",
    "frame_length",
    "pack_value",
    "unpack_value",
]

#: of the length in front of each frame [bytes]
PREFIX_SIZE: Final = 4
#: a message without its bulk is no longer than this [bytes]
MESSAGE_MAX: Final = 12 * 1024
#: every frame limit is at least this [bytes]
FRAME_MIN: Final = 16 * 1024
#: bulk that arrives in parts is no longer than this: more than the largest batch and the largest superblock [bytes]
BULK_MAX: Final = 68 * 1024 * 1024

#: kinds of frames that this module deals with itself; those of messages are greater
PART: Final = 0
DROP: Final = 1

#: of the head of the msgpack bin that holds the bulk [bytes]
BULK_HEAD_SIZE: Final = 5

_PREFIX: Final = struct.Struct(">I")
_BIN32: Final = struct.Struct(">BI")
_BIN32_CODE: Final = 0xC6
#: every dimension of msgpack has its limit: a frame cannot ask for more memory than its own length
_LIMITS: Final = {
    "max_str_len": MESSAGE_MAX,
    "max_bin_len": MESSAGE_MAX,
    "max_array_len": 4096,
    "max_map_len": 1024,
    "max_ext_len": 0,
}
_KIND_MAX: Final = 255

assert _BIN32.size == BULK_HEAD_SIZE
assert MESSAGE_MAX + BULK_HEAD_SIZE < FRAME_MIN


def encode_frame(message: list[Any] | tuple[Any, ...], bulk: Buffer | None = None) -> list[Buffer]:
    """The pieces of one frame, to be written one after another; `bulk` is not copied."""
    body = msgpack.packb(message, use_bin_type=True)
    if len(body) > MESSAGE_MAX:
        raise ProtocolError(
            f"a message of {len(body)} bytes; at most {MESSAGE_MAX}", rule="message size", value=len(body)
        )
    if bulk is None:
        return [_PREFIX.pack(len(body)) + body]
    view = memoryview(bulk).cast("B")
    head = _PREFIX.pack(len(body) + _BIN32.size + len(view)) + body + _BIN32.pack(_BIN32_CODE, len(view))
    return [head, view]


def frame_length(prefix: Buffer, limit: int) -> int:
    """The length of the body that follows, checked against the limit."""
    (length,) = _PREFIX.unpack(prefix)
    if not 0 < length <= limit:
        raise ProtocolError(
            f"a frame of {length} bytes; must be 1 to {limit}", rule="frame size", value=length
        )
    return int(length)


def decode_body(body: memoryview) -> tuple[list[Any], memoryview | None]:
    """The message and the bulk in a whole body; the bulk is a view of it. ProtocolError says which rule it breaks."""
    head = body[:MESSAGE_MAX]
    rest = body[len(body) :]
    try:
        message = msgpack.unpackb(head, raw=False, strict_map_key=False, use_list=True, **_LIMITS)
    except msgpack.ExtraData as extra:
        message, rest = extra.unpacked, body[len(head) - len(extra.extra) :]
    except Exception as error:
        # Its own errors share no base: ValueError and its subclasses for what is no msgpack, or does not end.
        raise ProtocolError(
            f"no message within {len(head)} bytes: {error!r:.200}", rule="message", value=repr(error)[:200]
        ) from error
    if not isinstance(message, list) or not message or type(message[0]) is not int:
        raise ProtocolError(
            f"a message must be a list that starts with its kind, not {message!r:.80}",
            rule="message",
            value=None,
        )
    if not 0 <= message[0] <= _KIND_MAX:
        raise ProtocolError(f"kind {message[0]!r:.40}", rule="kind", value=str(message[0])[:40])
    if not len(rest):
        return message, None
    if len(rest) < _BIN32.size or rest[0] != _BIN32_CODE:
        raise ProtocolError(f"{len(rest)} bytes behind the message are no bulk", rule="bulk", value=len(rest))
    (_code, length) = _BIN32.unpack_from(rest)
    if length != len(rest) - _BIN32.size:
        raise ProtocolError(
            f"bulk of {length} bytes in a frame that holds {len(rest) - _BIN32.size} of it",
            rule="bulk",
            value=length,
        )
    return message, rest[_BIN32.size :]


class Assembler:
    """Puts bulk together that comes in parts; keeps at most :data:`BULK_MAX` bytes."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def take(self, body: memoryview) -> tuple[list[Any], memoryview | None] | None:
        """The message in a body, with its whole bulk; None for a part of what comes later."""
        message, bulk = decode_body(body)
        if message[0] == DROP:
            self._parts = bytearray()
            return None
        if message[0] != PART and not self._parts:
            return message, bulk
        if bulk is None:
            raise ProtocolError("a part without bulk", rule="part", value=message[0])
        if len(self._parts) + len(bulk) > BULK_MAX:
            size = len(self._parts) + len(bulk)
            raise ProtocolError(
                f"bulk of {size} bytes and more; at most {BULK_MAX}", rule="bulk size", value=size
            )
        self._parts += bulk
        if message[0] == PART:
            return None
        whole, self._parts = self._parts, bytearray()
        return message, memoryview(whole)


def pack_value(value: object) -> bytes:
    """A value of lists, maps, text, bytes and numbers as bulk."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack_value(bulk: memoryview | None) -> Any:
    """The value that :func:`pack_value` made bulk of; ProtocolError where it is none."""
    if bulk is None:
        raise ProtocolError("a value is missing", rule="value", value=None)
    size = len(bulk)
    try:
        return msgpack.unpackb(
            bulk,
            raw=False,
            use_list=True,
            strict_map_key=False,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except Exception as error:
        raise ProtocolError(f"no value: {error!r:.200}", rule="value", value=repr(error)[:200]) from error
