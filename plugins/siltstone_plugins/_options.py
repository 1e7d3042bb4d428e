"""Checks of what callers ask of a backend: its own options, and the refusals that they override."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from siltstone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from siltstone.plugin.types import BackendOptions

#: reasons of RefusedDeviceError that `BackendOptions.force` may name
FORCEABLE: Final[Mapping[str, str]] = {
    "data": "it holds bytes of unknown kind where the volume would begin",
    "held": "the kernel says that another driver (md, device mapper, bcache) uses it",
    "local_lock": "locks on its file system do not reach other machines",
    "mounted": "it is mounted, or a partition of it is",
    "partitioned": "it has a partition table",
    "signature": "it bears the signature of a file system or container",
    "swap": "it is swap space in use",
}


def check_names(scheme: str, options: BackendOptions, known: Mapping[str, str]) -> None:
    """Raise ConfigError for an option or a forced refusal that nobody has heard of."""
    for key in options.extra:
        if key not in known:
            raise _wrong(scheme, key, f"unknown option; there are: {', '.join(sorted(known)) or 'none'}")
    for name in sorted(options.force):
        if name not in FORCEABLE:
            raise _wrong(scheme, "force", f"{name!r} cannot be forced; these can: {', '.join(FORCEABLE)}")


def flag(scheme: str, extra: Mapping[str, Any], key: str, default: bool) -> bool:
    """Return a true-or-false option."""
    value = extra.get(key, default)
    if not isinstance(value, bool):
        raise _wrong(scheme, key, f"{value!r} must be true or false")
    return value


def choice(scheme: str, extra: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """Return an option that is one of a few words; the first is the default."""
    value = extra.get(key, allowed[0])
    if value not in allowed:
        raise _wrong(scheme, key, f"{value!r} must be one of {', '.join(allowed)}")
    return str(value)


def number(scheme: str, extra: Mapping[str, Any], key: str, default: int, *, low: int, high: int) -> int:
    """Return an option that is a whole number from `low` to `high`."""
    value = extra.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(scheme, key, f"{value!r} must be a whole number from {low} to {high}")
    return value


def _wrong(scheme: str, key: str, rule: str) -> ConfigError:
    return ConfigError(f"backend {scheme}, option {key}: {rule}", source=f"backend {scheme}", key=key)
