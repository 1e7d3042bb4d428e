"""The typed records that plugins yield from their hooks: entry types, backends, consumers.

Each record is checked when it is made, so that a wrong one fails where it was written, with the name of the
field in the error.
"""

from __future__ import annotations

import re
import reprlib
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.errors import EntryError, PluginError
from siltstone.format.constants import (
    ENTRY_HEADER_SIZE,
    ENTRY_SIZE_MAX,
    TYPE_HASH,
    TYPE_PLUGIN_FIRST,
    TYPE_PLUGIN_LAST,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from siltstone.volume.backend import Backend, Handover

__all__ = [
    "PAYLOAD_SIZE_MAX",
    "BackendOptions",
    "BackendType",
    "Consumer",
    "EntryType",
    "ReplayBatch",
    "describe_error",
]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}")

#: the largest payload of an entry [bytes]
PAYLOAD_SIZE_MAX = ENTRY_SIZE_MAX - ENTRY_HEADER_SIZE


_shortened = reprlib.Repr()
_shortened.maxother = 200


def describe_error(error: BaseException) -> str:
    """Return kind and message of `error` in one text; also for an error whose own ``str`` fails."""
    return "".join(traceback.format_exception_only(error)).strip()


def _check(condition: bool, what: str, name: object, rule: str) -> None:
    if not condition:
        raise PluginError(f"{what} {name!r}: {rule}", plugin=str(name))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_name(what: str, name: object, pattern: re.Pattern[str], key: str) -> None:
    matches = isinstance(name, str) and bool(pattern.fullmatch(name))
    _check(matches, what, name, f"{key} must match {pattern.pattern}")


def _payload_dtype(name: str, fields: object) -> np.dtype[Any]:
    """Return the layout of `fields`; PluginError unless it is the same bytes on every machine."""
    what = "entry type"
    try:
        pairs = [(str(field_name), str(kind)) for field_name, kind in fields]  # type: ignore[attr-defined]
        dtype: np.dtype[Any] = np.dtype(pairs)
    except (TypeError, ValueError, SyntaxError) as error:
        raise PluginError(f"{what} {name!r}: fields {fields!r}: {error}", plugin=name) from error
    _check(dtype.names is not None, what, name, f"fields {fields!r}: must be (name, type) pairs")
    for key in dtype.names or ():
        part = dtype[key]
        # Native numbers differ between machines, S and U types drop zeros at the end, objects are pointers.
        number = part.kind in "uif" and (part.byteorder == ">" or part.itemsize == 1)
        plain_bytes = part.kind == "V" and part.names is None and part.subdtype is None and part.itemsize > 0
        rule = f"fields: {key!r} is {part.str!r}, must be a big-endian number ('>u8') or bytes ('V32')"
        _check(number or plain_bytes, what, name, rule)
    size = dtype.itemsize
    rule = f"fields take {size} bytes, must be 1-{PAYLOAD_SIZE_MAX}"
    _check(0 < size <= PAYLOAD_SIZE_MAX, what, name, rule)
    return dtype


@dataclass(frozen=True, slots=True)
class EntryType:
    """An entry type: its number on the medium, its codec, and which part of a payload is its key.

    :param id: type byte, 0x10-0xEF (0x02 is `hash_info`, which the distribution `siltstone` itself provides)
    :param name: unique, ``[a-z][a-z0-9_]*``
    :param version: of the payload's layout, recorded in the superblock; a store with another one is refused
    :param record: the class that callers put and get
    :param encode: record to payload [0-252 bytes]
    :param decode: payload to record; raises ValueError for bytes that are none
    :param fields: for types of fixed size, the layout of the payload as (name, NumPy dtype) pairs in order,
        big-endian numbers as ``">u8"``, byte strings as ``"V32"``; batches go through it without a call a
        record. None: the size varies.
    :param key: (offset, size) of the key in the payload [bytes]; None: the type has no key, is not indexed,
        and reaches consumers at replay instead. All payloads of a keyed type are at least as long as the
        key's end.
    """

    id: int
    name: str
    version: int
    record: type[Any]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    fields: tuple[tuple[str, str], ...] | None = None
    key: tuple[int, int] | None = None
    _dtype: np.dtype[Any] | None = field(init=False, repr=False, compare=False)
    _sizes: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        what = "entry type"
        _check_name(what, self.name, _NAME, "name")
        first, last = TYPE_PLUGIN_FIRST, TYPE_PLUGIN_LAST
        _check(
            _is_integer(self.id) and (self.id == TYPE_HASH or first <= self.id <= last),
            what,
            self.name,
            f"id {self.id!r} is not in {first:#04x}-{last:#04x}; the others are reserved",
        )
        rule = f"version {self.version!r} must be 1-65535"
        _check(_is_integer(self.version) and 0 < self.version < 1 << 16, what, self.name, rule)
        _check(isinstance(self.record, type), what, self.name, "record must be a class")
        _check(callable(self.encode), what, self.name, "encode must be callable")
        _check(callable(self.decode), what, self.name, "decode must be callable")
        object.__setattr__(self, "_dtype", None)
        if self.fields is not None:
            object.__setattr__(self, "_dtype", _payload_dtype(self.name, self.fields))
            object.__setattr__(self, "fields", tuple((str(name), str(kind)) for name, kind in self.fields))
        if self.key is not None:
            self._check_key(self.key)
        size = self.payload_size
        least = sum(self.key) if self.key else 0
        object.__setattr__(self, "_sizes", (least, PAYLOAD_SIZE_MAX) if size is None else (size, size))

    def _check_key(self, key: tuple[int, int]) -> None:
        rule = f"key {key!r} must be (offset, size)"
        pair = isinstance(key, tuple) and len(key) == 2 and all(map(_is_integer, key))
        _check(pair, "entry type", self.name, rule)
        offset, size = key
        limit = PAYLOAD_SIZE_MAX if self.payload_size is None else self.payload_size
        # A DELETE carries the key behind one type byte, so a key is one byte shorter than a payload may be.
        fits = offset >= 0 and 1 <= size < PAYLOAD_SIZE_MAX and offset + size <= limit
        _check(fits, "entry type", self.name, f"key {key!r} does not fit a payload of {limit} bytes")

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The payload as a NumPy structured type, or None where the size varies."""
        return self._dtype

    @property
    def payload_size(self) -> int | None:
        """Bytes of a payload, or None where the size varies."""
        return None if self._dtype is None else self._dtype.itemsize

    @property
    def payload_size_range(self) -> tuple[int, int]:
        """Bytes of the shortest and of the longest payload that this type may have."""
        return self._sizes

    def key_of(self, payload: bytes) -> bytes | None:
        """Return the key in a payload of this type, or None where the type has no key."""
        if self.key is None:
            return None
        offset, size = self.key
        return bytes(payload[offset : offset + size])

    def to_payload(self, record: Any) -> bytes:
        """Encode `record`; EntryError where the codec refuses it or breaks its own declaration."""
        if not isinstance(record, self.record):
            given = type(record).__name__
            raise EntryError(f"{self.name}: must be a {self.record.__name__}, not a {given}", type=self.name)
        try:
            payload = self.encode(record)
        except EntryError:
            raise
        except Exception as error:
            shown = _shortened.repr(record)
            raise EntryError(
                f"{self.name}: cannot encode {shown}: {describe_error(error)}", type=self.name
            ) from error
        # bytes(7) is seven zeros and bytes([7]) one byte: no codec that returns an int or a list meant that.
        if type(payload) is not bytes:
            if not isinstance(payload, bytes | bytearray | memoryview):
                given = type(payload).__name__
                raise EntryError(f"{self.name}: encode gave a {given}, not bytes", type=self.name)
            payload = bytes(payload)
        low, high = self._sizes
        if not low <= len(payload) <= high:
            raise self._wrong_size(len(payload))
        return payload

    def from_payload(self, payload: bytes) -> Any:
        """Decode `payload`; EntryError where its size is wrong, or where the codec refuses it."""
        low, high = self._sizes
        if not low <= len(payload) <= high:
            raise self._wrong_size(len(payload))
        try:
            record = self.decode(payload)
        except EntryError:
            raise
        except Exception as error:
            raise EntryError(
                f"{self.name}: cannot decode a payload of {len(payload)} bytes: {describe_error(error)}",
                type=self.name,
                size=len(payload),
            ) from error
        if not isinstance(record, self.record):
            given = type(record).__name__
            raise EntryError(
                f"{self.name}: decode gave a {given}, not a {self.record.__name__}", type=self.name
            )
        return record

    def _wrong_size(self, size: int) -> EntryError:
        low, high = self._sizes
        need = f"{low}" if low == high else f"{low}-{high}"
        return EntryError(f"{self.name}: payload of {size} bytes, must be {need}", type=self.name, size=size)


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How a backend is to be opened. Options of its own come in `extra`, checked by the backend.

    :param read_only: open for reading; nothing is written
    :param create: make the target where it does not exist (a file)
    :param exclusive: with `create`, raise AlreadyExistsError where it does exist
    :param force: kinds of refusal to override, by name (the `reason` of RefusedDeviceError)
    :param extra: the backend's own options by name
    """

    read_only: bool = False
    create: bool = False
    exclusive: bool = False
    force: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class BackendType:
    """A backend: the URL scheme that names it and how to open a target.

    :param scheme: as in ``scheme:rest``, unique
    :param open: (rest of the URL, options) to an open, not yet locked Backend
    :param claims: says whether a plain path without a scheme is this backend's (a block device, a file);
        asked in the order of `priority`, greatest first. It looks and changes nothing.
    :param options: names of the keys that `BackendOptions.extra` may hold, each with a line of documentation
    :param attach: as `open`, in another process, with what `Backend.hand_over` gave: a Backend that writes under
        the lock that was handed over; its `lock` does nothing, and it never grows the medium, which may grow
        under it. None: the stores of this backend stay in one process.
    """

    scheme: str
    open: Callable[[str, BackendOptions], Backend]
    claims: Callable[[str], bool] | None = None
    priority: int = 0
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    attach: Callable[[str, BackendOptions, Handover], Backend] | None = None

    def __post_init__(self) -> None:
        what = "backend"
        _check_name(what, self.scheme, _SCHEME, "scheme")
        _check(callable(self.open), what, self.scheme, "open must be callable")
        claims_fit = self.claims is None or callable(self.claims)
        _check(claims_fit, what, self.scheme, "claims must be callable or None")
        attaches = self.attach is None or callable(self.attach)
        _check(attaches, what, self.scheme, "attach must be callable or None")
        rule = f"priority {self.priority!r} must be an integer"
        _check(_is_integer(self.priority), what, self.scheme, rule)
        pairs = self.options.items() if hasattr(self.options, "items") else [(None, None)]
        documented = all(isinstance(name, str) and isinstance(line, str) for name, line in pairs)
        _check(documented, what, self.scheme, "options must map each name to a line of documentation")


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Entries of one type in the order they were appended, as a consumer gets them.

    :param shard: number of the shard that they were found in
    :param entry_type: their type
    :param payloads: one bytes object an entry, decoded by ``entry_type.from_payload``
    """

    shard: int
    entry_type: EntryType
    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Consumer:
    """Something that gets the entries of types without a key when a store is opened.

    :param name: unique
    :param entry_types: names of the types that it gets
    :param consume: called with one batch after another while the store opens, from one thread at a time;
        all entries of one type come from one shard, in the order they were appended
    """

    name: str
    entry_types: frozenset[str]
    consume: Callable[[ReplayBatch], None]

    def __post_init__(self) -> None:
        what = "consumer"
        _check_name(what, self.name, _NAME, "name")
        # A string is a collection of strings too, of one letter each.
        rule = f"entry_types {self.entry_types!r} must be a set of names of entry types"
        _check(isinstance(self.entry_types, frozenset | set | tuple | list), what, self.name, rule)
        names = tuple(self.entry_types)
        named = bool(names) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in names)
        _check(named, what, self.name, rule)
        object.__setattr__(self, "entry_types", frozenset(names))
        _check(callable(self.consume), what, self.name, "consume must be callable")
