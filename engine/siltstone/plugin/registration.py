"""One plugin at a time: load it, call its hooks, keep what it yields if all of it is valid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import pluggy

from siltstone.errors import PluginError, PluginLoadError
from siltstone.format.constants import TYPE_HASH
from siltstone.plugin import hookspecs
from siltstone.plugin.discovery import BUILT_IN, PluginSource, Provider, normalise
from siltstone.plugin.hosting import ShardHostType
from siltstone.plugin.types import BackendType, Consumer, EntryType, describe_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "RECORDS_MAX",
    "Claim",
    "DistributionInfo",
    "LoadedPlugin",
    "describe_distributions",
    "load_plugin",
]

#: records that one hook may yield; there are 224 ids for plugins in all
RECORDS_MAX: Final = 1024

Record = TypeVar("Record", EntryType, BackendType, Consumer, ShardHostType)


class Claim(NamedTuple):
    """Something that only one plugin can have."""

    kind: str
    value: int | str

    def __str__(self) -> str:
        shown = f"{self.value:#04x}" if isinstance(self.value, int) else repr(self.value)
        return f"{self.kind} {shown}"


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin whose every record is valid.

    :param source: where it came from
    :param entry_types: what its hooks yielded, in that order, like the other three
    :param backends: its backends
    :param consumers: its consumers
    :param shard_hosts: its shard hosts
    """

    source: PluginSource
    entry_types: tuple[EntryType, ...]
    backends: tuple[BackendType, ...]
    consumers: tuple[Consumer, ...]
    shard_hosts: tuple[ShardHostType, ...] = ()

    @property
    def provider(self) -> Provider:
        """The distribution that it comes from."""
        return self.source.provider

    def claims(self) -> Iterator[Claim]:
        """Yield every id, name and scheme that it takes."""
        for entry_type in self.entry_types:
            yield Claim("entry type id", entry_type.id)
            yield Claim("entry type name", entry_type.name)
        for backend in self.backends:
            yield Claim("backend scheme", backend.scheme)
        for consumer in self.consumers:
            yield Claim("consumer name", consumer.name)
        for shard_host in self.shard_hosts:
            yield Claim("shard host name", shard_host.name)

    def __str__(self) -> str:
        entry_point = self.source.entry_point
        return f"{self.provider} (entry point {entry_point!r})" if entry_point else str(self.provider)


@dataclass(frozen=True, slots=True)
class DistributionInfo:
    """What one distribution provides, over all its entry points.

    :param name: of the distribution
    :param version: of the distribution
    :param entry_points: names of the entry points that were loaded
    :param entry_types: its entry types
    :param backends: its backends
    :param consumers: its consumers
    """

    name: str
    version: str
    entry_points: tuple[str, ...]
    entry_types: tuple[EntryType, ...]
    backends: tuple[BackendType, ...]
    consumers: tuple[Consumer, ...]


def load_plugin(source: PluginSource) -> LoadedPlugin:
    """Run the code of one plugin and return all that it provides; PluginLoadError, with its cause, if not.

    Whatever a plugin throws ends here, a call of ``sys.exit`` and a panic of a compiled extension too; only
    the user's own interrupt passes.
    """
    try:
        loaded = _collect(source, source.load())
        _check_own(loaded)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginLoadError(
            f"plugin {source.entry_point!r} of {source.provider} cannot be loaded: {describe_error(error)}",
            distribution=source.provider.distribution,
            plugin=source.entry_point,
            cause=describe_error(error),
        ) from error
    return loaded


def _collect(source: PluginSource, plugin: object) -> LoadedPlugin:
    # A manager of its own for each plugin: none can wrap, see or block the hooks of another.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=source.entry_point or source.provider.distribution)
    # A function marked as a hook that does not exist is misspelt, or wants another release of the engine.
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise PluginError(f"{plugin!r} implements no hook of {hookspecs.PROJECT}", plugin=source.entry_point)
    hook = manager.hook
    return LoadedPlugin(
        source,
        _records("siltstone_entry_types", hook.siltstone_entry_types(), EntryType),
        _records("siltstone_backends", hook.siltstone_backends(), BackendType),
        _records("siltstone_consumers", hook.siltstone_consumers(), Consumer),
        _records("siltstone_shard_hosts", hook.siltstone_shard_hosts(), ShardHostType),
    )


def _records(hook: str, results: list[Iterable[Any]], kind: type[Record]) -> tuple[Record, ...]:
    """Return what a hook yielded. PluginError unless all of it is of just this kind, and not too much."""
    records: list[Record] = []
    for result in results:
        records += islice(_elements(hook, result, kind), RECORDS_MAX + 1)
    if len(records) > RECORDS_MAX:
        raise PluginError(f"{hook} yields more than {RECORDS_MAX} records")
    return tuple(records)


def _elements(hook: str, result: Iterable[Any], kind: type[Record]) -> Iterator[Record]:
    if not hasattr(result, "__iter__"):
        raise PluginError(f"{hook} must yield records, it returned a {type(result).__name__}")
    for record in result:
        # Exactly this class: a subclass could do without the checks that the class makes.
        if type(record) is not kind:
            raise PluginError(f"{hook} yields a {type(record).__name__}, must be a {kind.__name__}")
        yield record


def _check_own(plugin: LoadedPlugin) -> None:
    """Check what can be checked without the other plugins: reserved ids, and the same claim made twice."""
    built_in = normalise(plugin.provider.distribution) == BUILT_IN
    for entry_type in plugin.entry_types:
        if entry_type.id == TYPE_HASH and not built_in:
            raise PluginError(
                f"entry type {entry_type.name!r}: id {TYPE_HASH:#04x} is reserved for {BUILT_IN} itself",
                distribution=plugin.provider.distribution,
                plugin=entry_type.name,
            )
    seen: set[Claim] = set()
    for claim in plugin.claims():
        if claim in seen:
            raise PluginError(f"{claim} is provided twice", distribution=plugin.provider.distribution)
        seen.add(claim)


def describe_distributions(plugins: Iterable[LoadedPlugin]) -> tuple[DistributionInfo, ...]:
    """Return what each distribution provides, in the order in which they come first in `plugins`."""
    by_provider: dict[Provider, list[LoadedPlugin]] = {}
    for plugin in plugins:
        by_provider.setdefault(plugin.provider, []).append(plugin)
    return tuple(
        DistributionInfo(
            name=provider.distribution,
            version=provider.version,
            entry_points=tuple(plugin.source.entry_point for plugin in group if plugin.source.entry_point),
            entry_types=tuple(each for plugin in group for each in plugin.entry_types),
            backends=tuple(each for plugin in group for each in plugin.backends),
            consumers=tuple(each for plugin in group for each in plugin.consumers),
        )
        for provider, group in by_provider.items()
    )
