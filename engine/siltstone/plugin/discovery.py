"""Which plugins are installed, and which of them may load. Nothing here runs a plugin's code."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from siltstone.errors import ConfigError
from siltstone.plugin.hookspecs import PROJECT
from siltstone.plugin.types import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "BUILT_IN",
    "PluginFailure",
    "PluginSource",
    "Provider",
    "allowed_names",
    "installed_plugins",
    "normalise",
]

#: the distribution that brings the built-in plugins, and that every allow-list includes
BUILT_IN: Final = "siltstone"

_DISTRIBUTION_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Provider:
    """A distribution that provides plugins.

    :param distribution: its name, as it writes it
    :param version: its version
    """

    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that was to be loaded and is left out.

    :param distribution: the distribution that it comes from
    :param version: of the distribution; empty where it is not known
    :param entry_point: name of the entry point; empty where it is the distribution as a whole that failed
    :param cause: what went wrong, as text
    """

    distribution: str
    version: str
    entry_point: str
    cause: str

    def __str__(self) -> str:
        entry_point = f", entry point {self.entry_point!r}" if self.entry_point else ""
        return f"{Provider(self.distribution, self.version)}{entry_point}: {self.cause}"


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin that has not been loaded yet.

    :param provider: where it comes from
    :param entry_point: name of its entry point; empty for an object that a caller handed in
    :param load: returns the module or object with the hooks; runs the plugin's code
    """

    provider: Provider
    entry_point: str
    load: Callable[[], object]

    def failure(self, cause: BaseException) -> PluginFailure:
        """Return the record of this plugin's failure with `cause`."""
        return PluginFailure(
            self.provider.distribution, self.provider.version, self.entry_point, describe_error(cause)
        )


def normalise(distribution: str) -> str:
    """Return the name under which package tools compare distributions: ``Foo._Bar`` is ``foo-bar``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def allowed_names(allow: Iterable[str] | None) -> frozenset[str] | None:
    """Return the normalised names that `allow` admits, or None for all. ConfigError for what is no name.

    None admits every installed distribution: whoever can install one can already run code in every
    interpreter of that environment, so a closed default would add a step and no wall. A list is for those
    who share an environment or want the set pinned; it always includes `siltstone`, without which no store
    opens, and so an empty list means the built-ins alone.
    """
    if allow is None:
        return None
    key = "plugins.allow"
    # A lone string is a collection too, of names of one letter each.
    if isinstance(allow, str):
        raise ConfigError(f"{key}: {allow!r} must be a list of names, as in [{allow!r}]", source=key, key=key)
    names = list(allow)
    for name in names:
        if not isinstance(name, str) or not _DISTRIBUTION_NAME.fullmatch(name):
            raise ConfigError(f"{key}: {name!r} is not the name of a distribution", source=key, key=key)
    return frozenset(map(normalise, names)) | {BUILT_IN}


def installed_plugins() -> tuple[list[PluginSource], list[PluginFailure]]:
    """Return the entry points of the group `siltstone`, `siltstone`'s own first, then by name.

    A distribution whose metadata cannot be read is reported, and hides no other.
    """
    sources: list[PluginSource] = []
    failures: list[PluginFailure] = []
    names: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            if not _in_group(distribution):
                continue
            name = distribution.metadata["Name"]
            if not name:
                raise ValueError("its metadata names no distribution")
            names.setdefault(normalise(name), name)
        except Exception as error:  # noqa: BLE001 - metadata is somebody else's file, and may break in any way
            failures.append(_unreadable(distribution, error))
    for key in sorted(names, key=lambda key: (key != BUILT_IN, key)):
        try:
            # The one that Python would import from: an older copy further down sys.path does not count.
            distribution = importlib.metadata.distribution(names[key])
            provider = Provider(names[key], distribution.metadata["Version"] or "(no version)")
            points = sorted(_in_group(distribution), key=lambda point: point.name)
            sources += (PluginSource(provider, point.name, point.load) for point in points)
        except Exception as error:  # noqa: BLE001 - as above
            failures.append(PluginFailure(names[key], "", "", describe_error(error)))
    return sources, failures


def _in_group(distribution: importlib.metadata.Distribution) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(distribution.entry_points.select(group=PROJECT))


def _unreadable(distribution: importlib.metadata.Distribution, error: Exception) -> PluginFailure:
    try:
        name = distribution.metadata["Name"] or "(unnamed)"
    except Exception:  # noqa: BLE001 - its metadata is what is broken
        name = "(unnamed)"
    return PluginFailure(name, "", "", f"{describe_error(error)} (in {getattr(distribution, '_path', '?')})")
