"""Sizes as people write and read them: `4k`, `1MiB`; and names of files that a terminal can show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ByteCount", "format_bytes", "format_count", "printable"]

_SIZE: Final = re.compile(r"(\d{1,20})\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class ByteCount(click.ParamType[int]):
    """A number of bytes: `4096`, `4k` and `4KiB` are the same, `4kB` is 4000.

    :param low: the smallest that is taken [bytes]
    :param high: the greatest that is taken [bytes]
    :param multiple: what it must be a multiple of [bytes]
    """

    name = "bytes"

    def __init__(self, low: int = 0, high: int = (1 << 63) - 1, multiple: int = 1) -> None:
        self.low = low
        self.high = high
        self.multiple = multiple

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return `value` in bytes; a usage error where it is no size or out of bounds."""
        count = (
            value if isinstance(value, int) else self._parse(value, lambda why: self.fail(why, param, ctx))
        )
        if not self.low <= count <= self.high:
            self.fail(
                f"{value} is not between {format_bytes(self.low)} and {format_bytes(self.high)}", param, ctx
            )
        if count % self.multiple:
            self.fail(f"{value} is not a multiple of {self.multiple} bytes", param, ctx)
        return count

    def _parse(self, text: str, fail: Callable[[str], Any]) -> int:
        match = _SIZE.fullmatch(text.strip())
        if match is None or (match[3] and not match[2] and match[3].lower() != "b"):
            fail(f"{text!r} is not a size; write it as 4096, 4k or 1MiB")
            raise AssertionError("unreachable")
        # As the core utilities have it: k and KiB are 1024, kB is 1000.
        base = 1000 if match[2] and (match[3] or "").lower() == "b" else 1024
        return int(match[1]) * int(base ** _POWERS[match[2].lower()])


def format_bytes(count: float) -> str:
    """Return a number of bytes in the unit that leaves one to four digits before the point: `12.3 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value == int(value) else f"{value:.1f} {unit}"


def format_count(count: int) -> str:
    """Return a number with its thousands set apart."""
    return f"{count:,}"


def printable(name: str | bytes) -> str:
    """Return a file name with every byte and character that a terminal must not get as an escape.

    The bytes of a name need not be text in any encoding, and may hold what moves a cursor.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
