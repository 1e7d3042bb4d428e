"""What a caller may ask for when a store is opened, gathered from arguments or from a configuration file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from siltstone.errors import ConfigError, ReadOnlyError
from siltstone.format.constants import ERASE_BLOCK_DEFAULT
from siltstone.format.superblock import SHARDS_MAX
from siltstone.volume.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from siltstone.plugin.host import PluginHost
    from siltstone.shard.opening import ReplayProgress

INDEX_MEMORY_DEFAULT = 256 << 20
_INDEX_MEMORY_MIN = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened; :func:`siltstone.open` says what each option does."""

    target: str
    workers: int | None = None
    shards: int = 8
    read_only: bool = False
    create: bool = True
    index_memory: int = INDEX_MEMORY_DEFAULT
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
        _check(1 <= self.shards <= SHARDS_MAX, "shards", self.shards, f"must be 1 to {SHARDS_MAX}")
        _check(
            self.index_memory >= _INDEX_MEMORY_MIN,
            "index_memory",
            self.index_memory,
            f"must be at least {_INDEX_MEMORY_MIN} bytes",
        )
        _check(
            self.missing_types in ("read_only", "refuse"),
            "missing_types",
            self.missing_types,
            'must be "read_only" or "refuse"',
        )
        if self.workers not in (None, 0):
            raise ConfigError(
                f"workers {self.workers!r}: this release keeps every shard in the caller's process; must be 0 or None",
                source="workers",
                key="workers",
            )
        if self.read_only and self.unreadable_is_torn:
            raise ReadOnlyError("unreadable_is_torn is for opening to write", reason="read_only")

    @classmethod
    def of(cls, target: str | os.PathLike[str], **options: Any) -> StoreOptions:
        """Options for a target: a path or URL, or a TOML file, whose keys the given options override."""
        text = os.fspath(target)
        if not isinstance(text, str):
            raise ConfigError(f"target {target!r}: must be text or a path", source="target", key="target")
        given = {name: value for name, value in options.items() if value is not None}
        if text.endswith(".toml"):
            given = _from_file(text) | given
            return cls(**given)
        # A path object is a path, whatever its name looks like.
        return cls(target=text if isinstance(target, str) else str(Path(".", text).absolute()), **given)


def _from_file(path: str) -> dict[str, Any]:
    from siltstone.core.config import load_configuration

    configuration = load_configuration(path)
    volume, store = configuration.volume, configuration.store
    found: dict[str, Any] = {
        "target": volume.target,
        "create": volume.create,
        "shards": volume.shards,
        "workers": store.workers,
        "read_only": store.read_only,
        "index_memory": store.index_memory,
        "missing_types": store.missing_types,
        "plugins_allow": configuration.plugins.allow,
        "backend_options": configuration.backend.options,
        "force": frozenset(configuration.backend.force),
    }
    if volume.erase_block is not None:
        found["erase_block"] = volume.erase_block
    return found


def _check(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{key} {value!r}: {rule}", source=key, key=key)
