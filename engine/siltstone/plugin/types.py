"""The typed records that plugins yield from their hooks: entry types, backends, consumers.

Each record is checked when it is made, so that a wrong one fails where it was written, with the name of the
field in the error.
"""

from __future__ import annotations

import re
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

    from siltstone.volume.backend import Backend

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}")

#: the largest payload of an entry [bytes]
PAYLOAD_SIZE_MAX = ENTRY_SIZE_MAX - ENTRY_HEADER_SIZE


def _check(condition: bool, what: str, name: object, rule: str) -> None:
    if not condition:
        raise PluginError(f"{what} {name!r}: {rule}", plugin=str(name))


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

    def __post_init__(self) -> None:
        what = "entry type"
        _check(isinstance(self.name, str) and bool(_NAME.fullmatch(self.name)), what, self.name, f"name must match {_NAME.pattern}")
        _check(
            isinstance(self.id, int) and (self.id == TYPE_HASH or TYPE_PLUGIN_FIRST <= self.id <= TYPE_PLUGIN_LAST),
            what,
            self.name,
            f"id {self.id!r} is not in {TYPE_PLUGIN_FIRST:#04x}-{TYPE_PLUGIN_LAST:#04x}; the others are reserved",
        )
        _check(isinstance(self.version, int) and 0 < self.version < 1 << 16, what, self.name, "version must be 1-65535")
        _check(isinstance(self.record, type), what, self.name, "record must be a class")
        _check(callable(self.encode) and callable(self.decode), what, self.name, "encode and decode must be callable")
        if self.fields is not None:
            try:
                size = np.dtype(list(self.fields)).itemsize
            except TypeError as error:
                raise PluginError(f"{what} {self.name!r}: fields: {error}", plugin=self.name) from error
            _check(0 < size <= PAYLOAD_SIZE_MAX, what, self.name, f"fields take {size} bytes, at most {PAYLOAD_SIZE_MAX}")
        if self.key is not None:
            offset, size = self.key
            end = offset + size
            limit = self.payload_size or PAYLOAD_SIZE_MAX
            # A DELETE carries the key behind one type byte, so a key is one byte shorter than a payload may be.
            _check(
                offset >= 0 and 1 <= size < PAYLOAD_SIZE_MAX and end <= limit,
                what,
                self.name,
                f"key {self.key} does not fit a payload of {limit} bytes",
            )

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The payload as a NumPy structured type, or None where the size varies."""
        return None if self.fields is None else np.dtype(list(self.fields))

    @property
    def payload_size(self) -> int | None:
        """Bytes of a payload, or None where the size varies."""
        dtype = self.dtype
        return None if dtype is None else dtype.itemsize

    def to_payload(self, record: Any) -> bytes:
        """Encode `record`; EntryError where the codec refuses it or breaks its own declaration."""
        if not isinstance(record, self.record):
            raise EntryError(
                f"{self.name}: a {self.record.__name__} is needed, not a {type(record).__name__}", type=self.name
            )
        try:
            payload = bytes(self.encode(record))
        except EntryError:
            raise
        except Exception as error:
            raise EntryError(f"{self.name}: cannot encode {record!r}: {error}", type=self.name) from error
        low = self.payload_size if self.payload_size is not None else (sum(self.key) if self.key else 0)
        high = self.payload_size if self.payload_size is not None else PAYLOAD_SIZE_MAX
        if not low <= len(payload) <= high:
            raise EntryError(
                f"{self.name}: payload of {len(payload)} bytes, must be {low}-{high}", type=self.name, size=len(payload)
            )
        return payload

    def from_payload(self, payload: bytes) -> Any:
        """Decode `payload`; EntryError where the codec refuses it."""
        try:
            return self.decode(payload)
        except EntryError:
            raise
        except Exception as error:
            raise EntryError(
                f"{self.name}: cannot decode a payload of {len(payload)} bytes: {error}",
                type=self.name,
                size=len(payload),
            ) from error


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
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackendType:
    """A backend: the URL scheme that names it and how to open a target.

    :param scheme: as in ``scheme:rest``, unique
    :param open: (rest of the URL, options) to an open, not yet locked Backend
    :param claims: says whether a plain path without a scheme is this backend's (a block device, a file);
        asked in the order of `priority`, greatest first
    :param options: names of the keys that `BackendOptions.extra` may hold, each with a line of documentation
    """

    scheme: str
    open: Callable[[str, BackendOptions], Backend]
    claims: Callable[[str], bool] | None = None
    priority: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(
            isinstance(self.scheme, str) and bool(_SCHEME.fullmatch(self.scheme)),
            "backend",
            self.scheme,
            f"scheme must match {_SCHEME.pattern}",
        )
        _check(callable(self.open), "backend", self.scheme, "open must be callable")


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
        _check(isinstance(self.name, str) and bool(_NAME.fullmatch(self.name)), "consumer", self.name, f"name must match {_NAME.pattern}")
        _check(bool(self.entry_types), "consumer", self.name, "entry_types is empty")
        _check(callable(self.consume), "consumer", self.name, "consume must be callable")


