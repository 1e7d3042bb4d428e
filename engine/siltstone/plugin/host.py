"""The plugin host: loads what may load, keeps what is valid, and answers who provides what."""

from __future__ import annotations

import logging
import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from siltstone.errors import (
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownEntryTypeError,
    VersionError,
)
from siltstone.plugin.discovery import (
    PluginFailure,
    PluginSource,
    Provider,
    allowed_names,
    installed_plugins,
    normalise,
)
from siltstone.plugin.registration import DistributionInfo, LoadedPlugin, describe_distributions, load_plugin
from siltstone.plugin.types import describe_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from siltstone.plugin.hosting import ShardHostType
    from siltstone.plugin.registration import Claim
    from siltstone.plugin.types import BackendType, Consumer, EntryType

__all__ = ["DistributionInfo", "PluginFailure", "PluginHost", "Provider"]

logger = logging.getLogger("siltstone.plugin")

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


class PluginHost:
    """What the loaded plugins provide. Made by :meth:`load`, never changed after: threads may share it."""

    #: every entry type by its id
    entry_types: Mapping[int, EntryType]
    #: every backend by its scheme
    backends: Mapping[str, BackendType]
    #: every consumer, those of `siltstone` first, then by distribution and entry point
    consumers: tuple[Consumer, ...]
    #: every shard host by its name
    shard_hosts: Mapping[str, ShardHostType]
    #: the distributions that something was loaded from, with what they provide
    distributions: tuple[DistributionInfo, ...]
    #: what was to be loaded and is left out, with the cause
    failures: tuple[PluginFailure, ...]
    #: installed distributions with plugins that the allow-list does not name; none of their code ran
    refused: tuple[Provider, ...]

    def __init__(
        self, plugins: Iterable[LoadedPlugin], failures: Iterable[PluginFailure], refused: Iterable[Provider]
    ) -> None:
        """Take over loaded plugins. PluginConflictError where two claim one id, name or scheme."""
        kept = list(plugins)
        self.failures = tuple(failures)
        self.refused = tuple(refused)
        _check_conflicts(kept)
        entry_types = [entry_type for plugin in kept for entry_type in plugin.entry_types]
        self.entry_types = MappingProxyType({entry_type.id: entry_type for entry_type in entry_types})
        self.backends = MappingProxyType({each.scheme: each for plugin in kept for each in plugin.backends})
        self.consumers = tuple(consumer for plugin in kept for consumer in plugin.consumers)
        self.shard_hosts = MappingProxyType(
            {each.name: each for plugin in kept for each in plugin.shard_hosts}
        )
        self.distributions = describe_distributions(kept)
        self._by_name = {entry_type.name: entry_type for entry_type in entry_types}
        self._providers = {each.id: plugin.provider for plugin in kept for each in plugin.entry_types}
        self._by_class: dict[type, list[EntryType]] = {}
        for entry_type in entry_types:
            self._by_class.setdefault(entry_type.record, []).append(entry_type)

    @classmethod
    def load(
        cls,
        allow: Sequence[str] | None = None,
        extra: Iterable[object | tuple[str, object]] = (),
        *,
        discover: bool = True,
    ) -> PluginHost:
        """Load the installed plugins that `allow` admits, and those in `extra`. Runs their code.

        :param allow: names of distributions that may load, besides `siltstone` itself; None: every installed
            one (:func:`siltstone.plugin.discovery.allowed_names` says why)
        :param extra: modules or objects with hooks, for tests and programs that bring their own; each may be
            a pair of the name of a distribution that it stands for and the module or object
        :param discover: False leaves installed distributions alone, the built-ins too

        An installed plugin that fails is logged, kept in :attr:`failures`, and left out whole. One in `extra`
        raises PluginLoadError. PluginConflictError where two plugins claim one id, name or scheme;
        ConfigError where `allow` holds what is no name.
        """
        allowed = allowed_names(allow)

        def admits(distribution: str) -> bool:
            return allowed is None or normalise(distribution) in allowed

        sources, failures = installed_plugins() if discover else ([], [])
        admitted = [source for source in sources if admits(source.provider.distribution)]
        refused = {source.provider: None for source in sources if not admits(source.provider.distribution)}
        failures = [failure for failure in failures if admits(failure.distribution)]
        if discover:
            failures += _absent(allow or (), sources)
        plugins: list[LoadedPlugin] = []
        for source in admitted:
            try:
                plugins.append(load_plugin(source))
            except PluginLoadError as error:
                logger.debug("%s", error, exc_info=error)
                failures.append(source.failure(error.__cause__ or error))
        plugins += (load_plugin(_source(each)) for each in extra)
        plugins, misplaced = _without_misplaced_consumers(plugins)
        failures += misplaced
        for failure in failures:
            logger.warning("plugin left out: %s", failure)
        return cls(plugins, failures, refused)

    # ---- entry types

    def entry_type(self, id: int) -> EntryType:  # noqa: A002 - the field's own name
        """Return the entry type with this id. UnknownEntryTypeError where nobody provides it."""
        found = self.entry_types.get(id)
        if found is None:
            shown = f"{id:#04x}" if isinstance(id, int) else repr(id)
            raise UnknownEntryTypeError(f"no plugin provides entry type {shown}{self._failed()}", type=id)
        return found

    def entry_type_named(self, name: str) -> EntryType:
        """Return the entry type of this name. UnknownEntryTypeError where nobody provides it."""
        # What is no text may not even be looked up.
        found = self._by_name.get(name) if isinstance(name, str) else None
        if found is None:
            raise UnknownEntryTypeError(
                f"no plugin provides entry type {name!r:.80}{self._failed()}", type=name
            )
        return found

    def entry_type_of(self, record: Any) -> EntryType:
        """Return the entry type whose records `record` is one of: by its class, else the nearest base class.

        UnknownEntryTypeError where there is none, PluginError where two types share the class.
        """
        for kind in type(record).__mro__:
            found = self._by_class.get(kind, ())
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(f"{each.name} ({self.provider_of(each)})" for each in found)
                raise PluginError(f"records of class {kind.__qualname__} are of several entry types: {names}")
        name = type(record).__qualname__
        raise UnknownEntryTypeError(
            f"no plugin provides an entry type for records of class {name}{self._failed()}", type=name
        )

    def provider_of(self, entry_type: EntryType) -> Provider:
        """Return the distribution that provides `entry_type`, which is one of :attr:`entry_types`."""
        self.entry_type(entry_type.id)
        return self._providers[entry_type.id]

    def require_entry_type(self, id: int, name: str, version: int, distribution: str) -> EntryType:  # noqa: A002
        """Return the entry type that a store says it holds, where it is the very same one.

        :param id: as the store has it, like the other three
        :param name: of the entry type
        :param version: of the payload's layout
        :param distribution: that provided the type when it was first stored

        PluginLoadError with the recorded cause where its plugin failed; VersionError where the layout has
        another version; UnknownEntryTypeError where nobody provides it, or somebody else's type has its id.
        """
        wanted = f"entry type {id:#04x} {name!r} version {version} of {distribution!r}"
        found = self.entry_types.get(id)
        if found is None or found.name != name or not self._comes_from(found, distribution):
            self._raise_missing(wanted, id, distribution, found)
        if found.version != version:
            raise VersionError(
                f"the store holds {wanted}, but {self._providers[id]} provides version {found.version} of it",
                version=version,
                known=found.version,
            )
        return found

    def _comes_from(self, entry_type: EntryType, distribution: str) -> bool:
        return normalise(self._providers[entry_type.id].distribution) == normalise(distribution)

    def _raise_missing(self, wanted: str, id: int, distribution: str, found: EntryType | None) -> NoReturn:  # noqa: A002
        """Raise the error that says why the type that a store needs is not there, and what would bring it."""
        home = normalise(distribution)
        failures = [each for each in self.failures if normalise(each.distribution) == home]
        if failures:
            causes = "; ".join(map(str, failures))
            raise PluginLoadError(
                f"the store needs {wanted}, which could not be loaded: {causes}",
                distribution=failures[0].distribution,
                plugin=failures[0].entry_point,
                cause=causes,
            )
        if found is not None:
            reason = f"here {found.id:#04x} is {found.name!r} of {self._providers[id]}"
        elif any(normalise(each.distribution) == home for each in self.refused):
            reason = "which is installed, but plugins.allow does not name it"
        elif any(normalise(each.name) == home for each in self.distributions):
            reason = "which is installed and no longer provides it"
        else:
            reason = "which is not installed"
        raise UnknownEntryTypeError(f"the store needs {wanted}, {reason}", type=id, provider=distribution)

    def consumers_of(self, entry_type: EntryType) -> tuple[Consumer, ...]:
        """Return the consumers that want entries of this type, in the order of :attr:`consumers`."""
        return tuple(consumer for consumer in self.consumers if entry_type.name in consumer.entry_types)

    # ---- backends

    def backend(self, scheme: str) -> BackendType:
        """Return the backend of this scheme. PluginError, naming those there are, where there is none."""
        found = self.backends.get(scheme.lower())
        if found is None:
            raise PluginError(
                f"no plugin provides backend {scheme!r}; known: {self._known()}{self._failed()}",
                plugin=scheme,
            )
        return found

    def shard_host(self, name: str) -> ShardHostType:
        """Return the shard host of this name. PluginError, naming those there are, where there is none."""
        found = self.shard_hosts.get(name)
        if found is None:
            known = ", ".join(sorted(self.shard_hosts)) or "none"
            raise PluginError(
                f"no plugin provides shard host {name!r}; known: {known}{self._failed()}", plugin=name
            )
        return found

    def resolve(self, target: str | os.PathLike[str]) -> tuple[BackendType, str]:
        """Return the backend for `target`, and what of the target to hand to it.

        ``scheme:rest`` with a known scheme is that backend's, whatever files there are: it means the same in
        every directory. Anything else is a path and goes to the first backend that claims it, by priority,
        then by scheme; so does a path object always, and a name with a colon in it that exists. PluginError
        for an unknown scheme, a path that nobody claims, and a backend whose `claims` fails, since the next
        one might take what is not its own.
        """
        path = os.fspath(target)
        if not isinstance(path, str) or not path or "\0" in path:
            raise PluginError(f"target {path!r}: must be a path or scheme:rest", plugin="")
        match = _SCHEME.fullmatch(path) if isinstance(target, str) else None
        if match and match[1].lower() in self.backends:
            return self.backends[match[1].lower()], match[2]
        if match and not os.path.lexists(path):
            raise PluginError(
                f"target {path!r}: no plugin provides backend {match[1]!r}; known: {self._known()}; "
                f"write ./{path} for a file of that name{self._failed()}",
                plugin=match[1],
            )
        for backend in sorted(self.backends.values(), key=lambda each: (-each.priority, each.scheme)):
            if backend.claims is not None and _claims(backend, path):
                return backend, path
        raise PluginError(f"target {path!r}: no backend claims this path{self._failed()}", plugin="")

    def _known(self) -> str:
        return ", ".join(sorted(self.backends)) or "none"

    def _failed(self) -> str:
        """Return the end of a message that says what was left out, since that may be what is missing."""
        if not self.failures:
            return ""
        return "; left out: " + "; ".join(map(str, self.failures))


def _claims(backend: BackendType, path: str) -> bool:
    assert backend.claims is not None
    try:
        return bool(backend.claims(path))
    except Exception as error:
        raise PluginError(
            f"target {path!r}: backend {backend.scheme!r} failed when asked whether it is its own "
            f"({describe_error(error)}); name a backend, as in {backend.scheme}:{path}",
            plugin=backend.scheme,
        ) from error


def _source(extra: object | tuple[str, object]) -> PluginSource:
    """Return the source for a plugin that the caller handed in."""
    if isinstance(extra, tuple):
        distribution, plugin = extra
    else:
        distribution, plugin = getattr(extra, "__name__", type(extra).__name__), extra
    return PluginSource(Provider(distribution, ""), "", lambda: plugin)


def _absent(allow: Iterable[str], sources: Iterable[PluginSource]) -> list[PluginFailure]:
    """Return a failure for each allowed name that brings no plugin, so that a slip of the pen is seen."""
    present = {normalise(source.provider.distribution) for source in sources}
    cause = "plugins.allow names it, but no distribution of that name with plugins is installed"
    return [PluginFailure(name, "", "", cause) for name in allow if normalise(name) not in present]


def _without_misplaced_consumers(
    plugins: list[LoadedPlugin],
) -> tuple[list[LoadedPlugin], list[PluginFailure]]:
    """Split off the plugins with a consumer of a type that has a key: it would wait for ever, in silence."""
    keyed = {each.name for plugin in plugins for each in plugin.entry_types if each.key is not None}
    kept: list[LoadedPlugin] = []
    failures: list[PluginFailure] = []
    for plugin in plugins:
        wrong = [(each.name, name) for each in plugin.consumers for name in sorted(each.entry_types & keyed)]
        if not wrong:
            kept.append(plugin)
            continue
        consumer, name = wrong[0]
        error = PluginError(
            f"consumer {consumer!r}: entry type {name!r} has a key and so reaches no consumer"
        )
        failures.append(plugin.source.failure(error))
    return kept, failures


def _check_conflicts(plugins: Iterable[LoadedPlugin]) -> None:
    """Raise PluginConflictError for the first id, name or scheme with several providers, naming them all."""
    claimed: dict[Claim, list[LoadedPlugin]] = {}
    for plugin in plugins:
        for claim in plugin.claims():
            claimed.setdefault(claim, []).append(plugin)
    for claim, claimants in claimed.items():
        if len(claimants) > 1:
            names = " and ".join(str(plugin) for plugin in claimants)
            raise PluginConflictError(
                f"{claim} is provided by {names}; uninstall one, or leave it out of plugins.allow",
                what=str(claim),
                providers=tuple(str(plugin.provider) for plugin in claimants),
            )
