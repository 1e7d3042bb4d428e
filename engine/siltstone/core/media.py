"""Opens the medium behind a target: resolves the backend, locks it, finds or makes the volume on it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from siltstone.errors import (
    AlreadyExistsError,
    DamageError,
    ForeignVolumeError,
    LockedError,
    MediumError,
    SiltstoneError,
)
from siltstone.format.constants import SLOT_OFFSETS
from siltstone.format.superblock import RecordedType
from siltstone.plugin.types import BackendOptions
from siltstone.volume.slots import read_superblock
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from siltstone.core.options import StoreOptions
    from siltstone.plugin.host import PluginHost
    from siltstone.plugin.types import BackendType, EntryType
    from siltstone.volume.backend import Backend

_PROBE = 64 * 1024
#: how long a holder of the medium that is ending is waited for, and how often is looked [seconds]
_ENDING_SECONDS = 2.0
_LOCK_PAUSE_SECONDS = 0.02
#: how often the superblock of a volume that somebody writes is read before it counts as damaged
_UNLOCKED_ATTEMPTS = 10


def locate(
    host: PluginHost, options: StoreOptions, *, create: bool
) -> tuple[BackendType, str, BackendOptions]:
    """Whose backend the target is, what of the target to hand to it, and how to open it."""
    kind, rest = host.resolve(options.target)
    return (
        kind,
        rest,
        BackendOptions(
            read_only=options.read_only, create=create, force=options.force, extra=options.backend_options
        ),
    )


def open_backend(host: PluginHost, options: StoreOptions, *, create: bool) -> Backend:
    """The locked backend of the target; with `create` it may be a new one, of size 0.

    A holder that is ending is waited for: the workers of a core that was killed end a moment after it.
    """
    kind, rest, backend_options = locate(host, options, create=create)
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            return _open_locked(kind, rest, backend_options)
        except LockedError as error:
            if not error.fields.get("is_ending") or time.monotonic() > deadline:
                raise
        time.sleep(_LOCK_PAUSE_SECONDS)


def _open_locked(kind: BackendType, rest: str, backend_options: BackendOptions) -> Backend:
    backend = kind.open(rest, backend_options)
    try:
        backend.lock()
    except BaseException:
        backend.close()
        raise
    return backend


def open_volume(host: PluginHost, options: StoreOptions) -> Volume:
    """The volume on the target, made where the target is new and `create` is set."""
    backend = open_backend(host, options, create=options.create and not options.read_only)
    try:
        if backend.size == 0 and options.create and not options.read_only:
            return new_volume(backend, host, options)
        return Volume.open(backend, ports=options.ports)
    except BaseException:
        backend.close()
        raise


def open_unlocked(host: PluginHost, options: StoreOptions) -> Volume:
    """The volume on the target, for reading beside a process that writes it and has its lock."""
    kind, rest, backend_options = locate(host, options, create=False)
    backend = kind.open(rest, backend_options)
    try:
        for _attempt in range(_UNLOCKED_ATTEMPTS):
            # One slot is whole at any time, but which of them changes while they are read.
            with suppress(ForeignVolumeError, DamageError, MediumError):
                return Volume.open(backend, ports=options.ports)
        return Volume.open(backend, ports=options.ports)
    except BaseException:
        backend.close()
        raise


def new_volume(backend: Backend, host: PluginHost, options: StoreOptions) -> Volume:
    """Write an empty volume to a locked backend and make it visible under its name, durably."""
    first = host.entry_type_named("hash_info")
    volume = Volume.create(
        backend,
        shards=options.shards,
        erase_block=options.erase_block,
        entry_types={first.id: recorded(host, first)},
        ports=options.ports,
    )
    backend.publish()
    return volume


def recorded(host: PluginHost, entry_type: EntryType) -> RecordedType:
    """How the superblock names an entry type."""
    return RecordedType(entry_type.name, entry_type.version, host.provider_of(entry_type).distribution)


def check_formattable(backend: Backend, *, overwrite: bool) -> None:
    """AlreadyExistsError or ForeignVolumeError where formatting would destroy something; reads only.

    What is new, zero or 0xFF all over where a volume starts may be formatted; a volume of ours, or anything
    else, only with `overwrite`.
    """
    if backend.size == 0 or overwrite:
        return
    try:
        slot, _number = read_superblock(backend)
    except SiltstoneError:
        for offset in SLOT_OFFSETS:
            length = min(_PROBE, backend.size - offset)
            probe = bytes(backend.read(offset, length)) if length > 0 else b""
            if probe.strip(b"\0") and probe.strip(b"\xff"):
                raise ForeignVolumeError(
                    f"{backend.url}: holds data that is no Siltstone volume; it was not written (overwrite to format"
                    " it all the same)",
                    url=backend.url,
                ) from None
        return
    raise AlreadyExistsError(
        f"{backend.url}: holds a Siltstone volume, {slot.superblock.uuid.hex()}; it was not written (overwrite to"
        " format it all the same)",
        url=backend.url,
    )
