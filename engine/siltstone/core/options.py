"""What a caller may ask for when a store is opened, gathered from arguments or from a configuration file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from siltstone.errors import ConfigError, ReadOnlyError
from siltstone.format.constants import ERASE_BLOCK_DEFAULT
from siltstone.format.superblock import SHARDS_MAX
from siltstone.plugin.host import PluginHost
from siltstone.plugin.hosting import WorkerOptions
from siltstone.shard.merging import HASH_STORES_KEPT_MAX, HASH_STORES_MAX_DEFAULT
from siltstone.volume.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from siltstone.shard.replaying import ReplayProgress

INDEX_MEMORY_DEFAULT = 256 << 20
_INDEX_MEMORY_MIN = 1 << 20
#: the index reserves twice its budget as address space, of which a process has 2^47 bytes
_INDEX_MEMORY_MAX = 1 << 44
#: which key of a configuration file an option comes from
_KEYS_OF_FILE: Final = {
    "target": "volume.target",
    "create": "volume.create",
    "shards": "volume.shards",
    "erase_block": "volume.erase_block",
    "workers": "store.workers",
    "worker": "workers",
    "read_only": "store.read_only",
    "index_memory": "store.index_memory",
    "on_full": "store.on_full",
    "hash_stores_max": "store.hash_stores_max",
    "missing_types": "store.missing_types",
    "plugins_allow": "plugins.allow",
    "backend_options": "backend.options",
    "force": "backend.force",
}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened; :func:`siltstone.open` says what each option does."""

    target: str
    workers: int | None = None
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    shards: int = 8
    read_only: bool = False
    create: bool = True
    index_memory: int = INDEX_MEMORY_DEFAULT
    on_full: Literal["merge", "drop_oldest"] = "merge"
    hash_stores_max: int = HASH_STORES_MAX_DEFAULT
    erase_block: int = ERASE_BLOCK_DEFAULT
    force: frozenset[str] = frozenset()
    missing_types: Literal["read_only", "refuse"] = "read_only"
    unreadable_is_torn: bool = False
    plugins_allow: Sequence[str] | None = None
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[ReplayProgress], None] | None = None
    plugins: PluginHost | None = None
    ports: Ports = field(default_factory=Ports)

    def __post_init__(self) -> None:
        for key in ("read_only", "create", "unreadable_is_torn"):
            value = getattr(self, key)
            _check(type(value) is bool, key, value, "must be True or False")
        for key in ("shards", "index_memory", "hash_stores_max", "erase_block"):
            value = getattr(self, key)
            _check(type(value) is int, key, value, "must be a whole number")
        _check(1 <= self.shards <= SHARDS_MAX, "shards", self.shards, f"must be 1 to {SHARDS_MAX}")
        _check(
            _INDEX_MEMORY_MIN <= self.index_memory <= _INDEX_MEMORY_MAX,
            "index_memory",
            self.index_memory,
            f"must be {_INDEX_MEMORY_MIN} to {_INDEX_MEMORY_MAX} bytes",
        )
        _check(
            self.on_full in ("merge", "drop_oldest"),
            "on_full",
            self.on_full,
            'must be "merge" or "drop_oldest"',
        )
        _check(
            1 <= self.hash_stores_max <= HASH_STORES_KEPT_MAX,
            "hash_stores_max",
            self.hash_stores_max,
            f"must be 1 to {HASH_STORES_KEPT_MAX}",
        )
        _check(
            self.missing_types in ("read_only", "refuse"),
            "missing_types",
            self.missing_types,
            'must be "read_only" or "refuse"',
        )
        _check(
            self.workers is None or (type(self.workers) is int and 0 <= self.workers <= SHARDS_MAX),
            "workers",
            self.workers,
            f"must be 0 to {SHARDS_MAX}, or None for one a processor",
        )
        self._check_objects()
        if self.read_only and self.unreadable_is_torn:
            raise ReadOnlyError("unreadable_is_torn is for opening to write", reason="read_only")

    def _check_objects(self) -> None:
        _check(
            _are_names(self.force), "force", self.force, "must be a collection of names, such as ['mounted']"
        )
        _check(
            self.plugins_allow is None or _are_names(self.plugins_allow),
            "plugins_allow",
            self.plugins_allow,
            "must be a list of names of distributions, or None",
        )
        _check(
            isinstance(self.backend_options, Mapping) and _are_names(self.backend_options.keys()),
            "backend_options",
            self.backend_options,
            "must map names of options to their values",
        )
        _check(
            self.progress is None or callable(self.progress), "progress", self.progress, "cannot be called"
        )
        _check(
            isinstance(self.worker, WorkerOptions), "worker", self.worker, "must be a siltstone.WorkerOptions"
        )
        _check(
            self.plugins is None or isinstance(self.plugins, PluginHost),
            "plugins",
            self.plugins,
            "must be a PluginHost",
        )

    @classmethod
    def of(cls, target: str | os.PathLike[str], **options: Any) -> StoreOptions:
        """Options for a target: a path or URL, or a TOML file, whose keys the given options override.

        Raises ConfigError, with the option and its value in the message, and the file where that came from one.
        """
        try:
            text = os.fspath(target)
        except TypeError:
            text = target  # type: ignore[assignment] # no text, as is said below
        _check(isinstance(text, str), "target", target, "must be text or a path")
        given = {name: value for name, value in options.items() if value is not None}
        if _are_names(given.get("force")):
            given["force"] = frozenset(given["force"])
        if text.endswith(".toml"):
            return cls._over_file(text, given)
        # A path object is a path, whatever its name looks like.
        return cls(target=text if isinstance(target, str) else str(Path(".", text).absolute()), **given)

    @classmethod
    def _over_file(cls, path: str, given: dict[str, Any]) -> StoreOptions:
        found = _from_file(path)
        try:
            return cls(**(found | given))
        except ConfigError as error:
            name = error.fields["key"]
            if name in given or name not in found:
                raise
            raise ConfigError(f"{path}: {error}", source=path, key=_KEYS_OF_FILE[name]) from error


def _from_file(path: str) -> dict[str, Any]:
    from siltstone.core.config import load_configuration

    configuration = load_configuration(path)
    volume, store = configuration.volume, configuration.store
    found: dict[str, Any] = {
        "target": volume.target,
        "create": volume.create,
        "shards": volume.shards,
        "workers": store.workers,
        "worker": WorkerOptions(
            deadline=configuration.workers.deadline,
            niceness=configuration.workers.niceness,
            affinity=_tuples(configuration.workers.affinity),
            wait=configuration.workers.wait,
        ),
        "read_only": store.read_only,
        "index_memory": store.index_memory,
        "on_full": store.on_full,
        "hash_stores_max": store.hash_stores_max,
        "missing_types": store.missing_types,
        "plugins_allow": configuration.plugins.allow,
        "backend_options": configuration.backend.options,
        "force": frozenset(configuration.backend.force),
    }
    if volume.erase_block is not None:
        found["erase_block"] = volume.erase_block
    return found


def _tuples(lists: list[list[int]] | None) -> tuple[tuple[int, ...], ...] | None:
    return None if lists is None else tuple(map(tuple, lists))


def _are_names(value: object) -> bool:
    """Whether it is a collection of texts; one text is not, though it can be iterated over."""
    return (
        isinstance(value, Collection)
        and not isinstance(value, (str, bytes, bytearray))
        and all(isinstance(name, str) for name in value)
    )


def _check(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{key} {value!r:.80}: {rule}", source=key, key=key)
