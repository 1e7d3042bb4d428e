"""Errors that cross a pipe: as themselves, by name, message and facts. And the one that ends a pipe."""

from __future__ import annotations

from operator import index
from typing import Any, Final

import numpy as np

from siltstone import errors
from siltstone.errors import ProtocolError, SiltstoneError, WorkerError
from siltstone_workers.frames import pack_value

__all__ = ["ProtocolError", "error_from_wire", "error_to_wire"]

#: a text in an error is no longer than this, and all its facts together than that [bytes]
_TEXT_MAX: Final = 2000
_FACTS_MAX: Final = 6000
_NAME_MAX: Final = 64
_DEPTH_MAX: Final = 3
_ITEMS_MAX: Final = 32
#: every error that may come through a pipe, by its name
_KNOWN: Final = {
    name: kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, SiltstoneError)
}


def error_to_wire(error: BaseException) -> list[Any]:
    """Name, message and facts of an error, as the nearest of Siltstone's own classes; any other is a WorkerError.

    It fits a message whatever the error says: long texts are cut, and facts for which there is no room left out.
    """
    kind = next((known for known in type(error).__mro__ if _KNOWN.get(known.__name__) is known), None)
    if not isinstance(error, SiltstoneError) or kind is None:
        shown = _cut(repr(error), _TEXT_MAX)
        return [WorkerError.__name__, f"unexpected in a worker: {shown}"[:_TEXT_MAX], {"cause": shown}]
    facts: dict[str, Any] = {}
    room = _FACTS_MAX
    for name, value in list(error.fields.items())[:_ITEMS_MAX]:
        fact = _plain(value)
        size = len(pack_value([name, fact]))
        if _may_be_fact(name) and size <= room:
            facts[name] = fact
            room -= size
    return [kind.__name__, _cut(error.message, _TEXT_MAX), facts]


def error_from_wire(value: object) -> SiltstoneError:
    """The error that was sent; ProtocolError where what was sent is none."""
    if not isinstance(value, list) or len(value) != 3:
        raise ProtocolError(f"no error: {value!r:.80}", rule="error", value=None)
    name, message, facts = value
    kind = _KNOWN.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(message, str) or not isinstance(facts, dict):
        raise ProtocolError(f"no error: {value!r:.80}", rule="error", value=None)
    if not all(map(_may_be_fact, facts)):
        raise ProtocolError(f"an error with facts {list(facts)!r:.80}", rule="error", value=None)
    return kind(message, **facts)


def _may_be_fact(name: object) -> bool:
    """Whether an error can have a fact of this name: not one that would stand where the error's own attributes do."""
    return (
        isinstance(name, str)
        and len(name) <= _NAME_MAX
        and name.isidentifier()
        and name not in ("self", "message", "fields")
        and not hasattr(SiltstoneError, name)
    )


def _plain(value: object, depth: int = 0) -> Any:
    """A fact as msgpack can carry it; what it cannot is shown as text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int | np.integer):
        number = index(value)
        return number if -(1 << 63) <= number < 1 << 64 else hex(number)[:_TEXT_MAX]
    if isinstance(value, str):
        return _cut(value, _TEXT_MAX)
    if isinstance(value, bytes):
        return value[:_TEXT_MAX]
    if isinstance(value, list | tuple) and depth < _DEPTH_MAX:
        # Fewer the deeper they lie: all of them together stay small.
        return [_plain(item, depth + 1) for item in value[: _ITEMS_MAX >> 2 * depth]]
    return _cut(repr(value), _TEXT_MAX)


def _cut(text: str, size: int) -> str:
    """As much of the beginning of a text as takes about `size` bytes in UTF-8, and no more."""
    text = text[:size]
    while len(text.encode(errors="surrogatepass")) > size:
        text = text[: len(text) * 3 // 4]
    return text
