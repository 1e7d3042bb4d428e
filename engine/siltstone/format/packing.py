"""The one place where msgpack's options are chosen: strict types, every limit set."""

from __future__ import annotations

from typing import Any

import msgpack

from siltstone.format.constants import SUPERBLOCK_PAYLOAD_MAX


def pack(value: Any) -> bytes:
    """Encode maps, lists, strings, integers, booleans, bytes and None."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=True)
    return packed


def unpack(data: bytes) -> Any:
    """Decode bytes from outside in time and memory linear in their length; ValueError where they are not msgpack."""
    size = len(data)
    if size > SUPERBLOCK_PAYLOAD_MAX:
        raise ValueError(f"{size} bytes, at most {SUPERBLOCK_PAYLOAD_MAX}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size // 2 + 1,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not valid msgpack: {error or type(error).__name__}") from error
