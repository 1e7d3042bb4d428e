"""What a worker is told when it is greeted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from siltstone.errors import ConfigError
from siltstone_workers.errors import ProtocolError
from siltstone_workers.frames import pack_value, unpack_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything that a worker cannot find out by itself.

    :param number: which worker it is
    :param shards: the shards that it owns
    :param sizes: for each of them the shape of its index: segments, bytes of a window, most records
    :param memory: descriptor of the shared memory that the indexes lie in
    :param mirrors: descriptor of the shared memory for copies of journals, where the medium cannot be mapped
    :param scheme: of the backend, like the following three as the core opened it
    :param rest: of the target
    :param force: refusals that were overridden
    :param extra: options of the backend
    :param descriptors: what the backend handed over
    :param facts: what the backend handed over
    :param plugins_allow: distributions that may load plugins, or None for all
    :param needed: entry types of the store: id, name, version, distribution
    :param keys: type id to offset and size of the key
    :param known: ids of the types that entries may have
    :param key_entry_bytes: the shortest entry that can bring a key [bytes]
    :param index_memory: budget of all shards' indexes together [bytes]
    :param unreadable_is_torn: see :func:`siltstone.journal.recovery.recover`
    :param drops_oldest: see :class:`siltstone.shard.merging.OnFull`, like the next
    :param hash_stores_max: most hash stores of a shard
    :param threads: shards that are replayed at the same time
    :param niceness: what is added to the niceness
    :param affinity: processors that the worker may run on, or None
    :param path: where the caller finds its modules, in that order
    """

    number: int
    shards: Sequence[int]
    sizes: Sequence[Sequence[int]]
    memory: int
    mirrors: int
    scheme: str
    rest: str
    force: Sequence[str]
    extra: Mapping[str, Any]
    descriptors: Sequence[int]
    facts: Mapping[str, Any]
    plugins_allow: Sequence[str] | None
    needed: Sequence[Sequence[Any]]
    keys: Mapping[int, Sequence[int]]
    known: Sequence[int]
    key_entry_bytes: int
    index_memory: int
    unreadable_is_torn: bool
    drops_oldest: bool
    hash_stores_max: int
    threads: int
    niceness: int
    affinity: Sequence[int] | None
    path: Sequence[str]

    def to_bulk(self) -> bytes:
        """The configuration as bulk; ConfigError where an option of the backend cannot cross to another process."""
        try:
            return pack_value({field.name: getattr(self, field.name) for field in fields(self)})
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"backend_options {dict(self.extra)!r:.80}: with worker processes each must be text, bytes, a number"
                f" or a list of these: {error}",
                source="backend_options",
                key="backend_options",
            ) from error

    @classmethod
    def from_bulk(cls, bulk: memoryview | None) -> WorkerConfig:
        """The configuration that was sent; ProtocolError where it is none."""
        value = unpack_value(bulk)
        if not isinstance(value, dict):
            raise ProtocolError("a configuration must be a map", rule="configuration", value=None)
        try:
            return cls(**value)
        except TypeError as error:
            raise ProtocolError(f"configuration: {error}", rule="configuration", value=None) from error
