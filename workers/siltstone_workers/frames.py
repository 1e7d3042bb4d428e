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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgpack

from siltstone.errors import ProtocolError
from siltstone.format.superblock import SHARDS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typing_extensions import Buffer

__all__ = [
    "BULK_CODE",
    "BULK_HEAD_SIZE",
    "BULK_MAX",
    "DEPTH_MAX",
    "DROP",
    "FRAME_MIN",
    "MESSAGE_MAX",
    "PART",
    "PREFIX_SIZE",
    "VALUE_MAX",
    "Bytes",
    "credit_of",
    "frame_length",
    "pack_value",
    "packer",
    "too_deep",
    "too_long",
    "unpack_message",
    "unpack_value",
]

#: bulk, or a piece of it, of which the length is the number of bytes
Bytes = bytes | bytearray | memoryview

#: of the length in front of each frame [bytes]
PREFIX_SIZE: Final = 4
#: a message without its bulk is no longer than this: more than news of all shards and an error [bytes]
MESSAGE_MAX: Final = 48 * 1024
#: every frame limit is at least this [bytes]
FRAME_MIN: Final = 64 * 1024
#: bulk that arrives in parts is no longer than this: more than the largest batch and the largest superblock [bytes]
BULK_MAX: Final = 68 * 1024 * 1024

#: a value that travels as bulk is no longer than this [bytes]
VALUE_MAX: Final = 4 * 1024 * 1024
#: lists and maps lie in one another no deeper than this
DEPTH_MAX: Final = 16

#: what a counted message takes of the credit besides its bulk: at least its head, and the same at both ends [bytes]
_HEAD_CREDIT: Final = 64

#: kinds of frames that this module deals with itself; those of messages are greater
PART: Final = 0
DROP: Final = 1

#: of the head of the msgpack bin that holds the bulk [bytes]
BULK_HEAD_SIZE: Final = 5

_PREFIX: Final = struct.Struct(">I")
BULK_CODE: Final = 0xC6
#: every dimension of msgpack has its limit: what a message claims to have takes a few MiB at most
_LIMITS: Final = {
    "max_str_len": MESSAGE_MAX,
    "max_bin_len": MESSAGE_MAX,
    "max_array_len": SHARDS_MAX,
    "max_map_len": 256,
    "max_ext_len": 0,
}
#: text is what Python has as text, names of files that are no UTF-8 among it
_TEXT: Final = "surrogatepass"


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension {code}")


_OPTIONS: Final[dict[str, Any]] = {
    "raw": False,
    "strict_map_key": False,
    "use_list": True,
    "unicode_errors": _TEXT,
    "ext_hook": _refuse_extension,
}

assert MESSAGE_MAX + BULK_HEAD_SIZE < FRAME_MIN


def credit_of(bulk_size: int) -> int:
    """Bytes of credit that a counted message with so much bulk holds until it has been dealt with."""
    return bulk_size + _HEAD_CREDIT


def packer() -> Callable[[Sequence[Any]], bytes]:
    """What makes messages, without their bulk, into msgpack, for one thread at a time; see :func:`too_long`."""
    pack: Callable[[Sequence[Any]], bytes] = msgpack.Packer(use_bin_type=True, unicode_errors=_TEXT).pack
    return pack


def too_long(body: bytes) -> ProtocolError:
    """The error of a message in msgpack that has more than :data:`MESSAGE_MAX` bytes."""
    return ProtocolError(
        f"a message of {len(body)} bytes; at most {MESSAGE_MAX}", rule="message size", value=len(body)
    )


def frame_length(prefix: Buffer, limit: int) -> int:
    """The length of the body that follows, checked against the limit."""
    (length,) = _PREFIX.unpack(prefix)
    if not 0 < length <= limit:
        raise ProtocolError(
            f"a frame of {length} bytes; must be 1 to {limit}", rule="frame size", value=length
        )
    return int(length)


#: bound once: the options of a call cost more than what it does
_unpack_message: Final = partial(msgpack.unpackb, **_OPTIONS, **_LIMITS)


def unpack_message(head: Buffer) -> Any:
    """What a message in msgpack says, all of it and nothing behind it; ProtocolError where it is none."""
    try:
        return _unpack_message(head)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        # Its own errors share no base. No others: a signal's handler may raise anything here.
        raise ProtocolError(
            f"no message within {memoryview(head).nbytes} bytes: {_shown(error)}",
            rule="message",
            value=_shown(error),
        ) from error


def too_deep() -> ProtocolError:
    """The error of a value that is nested too deep."""
    return ProtocolError(
        f"more than {DEPTH_MAX} lists and maps in one another", rule="depth", value=DEPTH_MAX
    )


def pack_value(value: object) -> bytes:
    """A value of lists, maps, text, bytes and numbers as bulk; ValueError, TypeError where it cannot be."""
    if _is_deeper(value, DEPTH_MAX):
        raise ValueError(f"more than {DEPTH_MAX} lists and maps in one another")
    packed = bytes(msgpack.packb(value, use_bin_type=True, unicode_errors=_TEXT))
    if len(packed) > VALUE_MAX:
        raise ValueError(f"{len(packed)} bytes; at most {VALUE_MAX}")
    return packed


def unpack_value(bulk: memoryview | None) -> Any:
    """The value that :func:`pack_value` made bulk of; ProtocolError where it is none."""
    if bulk is None:
        raise ProtocolError("a value is missing", rule="value", value=None)
    size = len(bulk)
    if not 0 < size <= VALUE_MAX:
        raise ProtocolError(
            f"a value of {size} bytes; must be 1 to {VALUE_MAX}", rule="value size", value=size
        )
    limits = dict.fromkeys(_LIMITS, size) | {"max_ext_len": 0}
    try:
        # First without making anything of it: a list takes the memory for all items that it claims to have before
        # the first is read, and there may be many such lists in one another.
        unpacker = msgpack.Unpacker(max_buffer_size=size)
        unpacker.feed(bulk)
        unpacker.skip()
        value = msgpack.unpackb(bulk, **_OPTIONS, **limits)
    except Exception as error:
        raise ProtocolError(f"no value: {_shown(error)}", rule="value", value=_shown(error)) from error
    if _is_deeper(value, DEPTH_MAX):
        raise too_deep()
    return value


def _is_deeper(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        items: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        return False
    return depth == 0 or any(
        _is_deeper(item, depth - 1) for item in items if isinstance(item, list | tuple | dict)
    )


def _shown(error: Exception) -> str:
    """An error of msgpack for people, without the bytes that it is about."""
    return f"{type(error).__name__}: {error}"[:200]
