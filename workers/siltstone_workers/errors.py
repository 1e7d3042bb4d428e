"""Errors that cross a pipe: as themselves, by name, message and facts. And the one that ends a pipe."""

from __future__ import annotations

from typing import Any, Final

from siltstone import errors
from siltstone.errors import ProtocolError, SiltstoneError, WorkerError

__all__ = ["ProtocolError", "error_from_wire", "error_to_wire"]

_TEXT_MAX: Final = 2000
_DEPTH_MAX: Final = 3
_ITEMS_MAX: Final = 32
#: every error that may come through a pipe, by its name
_KNOWN: Final = {
    name: kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, SiltstoneError)
}


def error_to_wire(error: BaseException) -> list[Any]:
    """Name, message and facts of an error; one that is not Siltstone's own becomes a WorkerError that shows it."""
    if isinstance(error, SiltstoneError) and type(error).__name__ in _KNOWN:
        facts = {str(name)[:64]: _plain(value) for name, value in list(error.fields.items())[:_ITEMS_MAX]}
        return [type(error).__name__, error.message[:_TEXT_MAX], facts]
    return [
        WorkerError.__name__,
        f"unexpected in a worker: {error!r:.1000}",
        {"cause": repr(error)[:_TEXT_MAX]},
    ]


def error_from_wire(value: object) -> SiltstoneError:
    """The error that was sent; ProtocolError where what was sent is none."""
    if not isinstance(value, list) or len(value) != 3:
        raise ProtocolError(f"no error: {value!r:.80}", rule="error", value=None)
    name, message, facts = value
    kind = _KNOWN.get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(message, str) or not isinstance(facts, dict):
        raise ProtocolError(f"no error: {value!r:.80}", rule="error", value=None)
    if not all(isinstance(key, str) and key.isidentifier() for key in facts):
        raise ProtocolError(f"an error with facts {list(facts)!r:.80}", rule="error", value=None)
    return kind(message, **{key: fact for key, fact in facts.items() if key not in ("message", "self")})


def _plain(value: object, depth: int = 0) -> Any:
    """A fact as msgpack can carry it; what it cannot is shown as text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)[:_TEXT_MAX]
    if isinstance(value, str | bytes):
        return value[:_TEXT_MAX]
    if isinstance(value, list | tuple) and depth < _DEPTH_MAX:
        return [_plain(item, depth + 1) for item in value[:_ITEMS_MAX]]
    return repr(value)[:_TEXT_MAX]
