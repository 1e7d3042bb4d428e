"""The kinds of messages, see messages.py."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(IntEnum):
    """The first item of every message. 0 and 1 belong to frames."""

    HELLO = 2
    READY = 3
    RECOVER = 4
    SERVE = 5
    APPEND = 6
    DELETE = 7
    FLUSH = 8
    FIGURES = 9
    END = 10
    EXIT = 11
    PROGRESS = 12
    FAILED = 13
    PUBLISH = 14
    ENTRIES = 15
    REPLAYED = 16
    REPLY = 17
    CREDIT = 18
    TIDY = 19
    SPACE = 20


def name_of(fields: Sequence[Any]) -> str:
    """What errors call a message."""
    try:
        return Kind(fields[0]).name
    except (ValueError, IndexError):
        return repr(fields[:1])
