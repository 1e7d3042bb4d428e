"""The functions of the front door: open, create, verify and export a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siltstone.core.export import Exported, export_volume
from siltstone.core.media import check_formattable, new_volume, open_backend
from siltstone.core.options import StoreOptions
from siltstone.core.verify import VerifyReport, verify_volume
from siltstone.errors import ConfigError
from siltstone.plugin.host import PluginHost
from siltstone.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from os import PathLike

    from siltstone.plugin.hosting import WorkerOptions
    from siltstone.shard.replaying import ReplayProgress


def open(  # noqa: A001 - as a store is opened like a file
    target: str | PathLike[str],
    *,
    workers: int | None = None,
    worker: WorkerOptions | None = None,
    shards: int | None = None,
    read_only: bool | None = None,
    create: bool | None = None,
    index_memory: int | None = None,
    on_full: str | None = None,
    hash_stores_max: int | None = None,
    erase_block: int | None = None,
    force: Collection[str] | None = None,
    missing_types: str | None = None,
    unreadable_is_torn: bool | None = None,
    plugins_allow: Sequence[str] | None = None,
    backend_options: Mapping[str, Any] | None = None,
    progress: Callable[[ReplayProgress], None] | None = None,
    plugins: PluginHost | None = None,
) -> Store:
    """Open the store at `target`, made there if it is a file that does not exist yet.

    :param target: path of a file volume or of a block device, ``scheme:rest`` for another backend, or the
        path of a TOML configuration (``*.toml``), whose keys the other arguments override
    :param workers: worker processes that share the shards, at most one a shard; 0: every shard is in the caller's
        process; None: one a processor, or 0 where the backend is one that only this process can use. A store that
        is open for reading only has none
    :param worker: how worker processes are run
    :param shards: parts that the keys are cut into, for a new store; fixed for its life [default 8]
    :param read_only: write nothing, not even to recover; other readers may share the store [default False]
    :param create: make a store where there is none [default True]; block devices are formatted by
        :func:`create`, never by opening them
    :param index_memory: budget of the index [bytes, default 256 MiB]; it takes about 9.5 bytes a record. Beyond it
        the oldest records go into hash stores, which take 1.25 bytes of memory each
    :param on_full: "merge" (default) merges hash stores, and a full volume raises DiskFullError; "drop_oldest"
        gives up the oldest records instead where the volume is full or a shard has `hash_stores_max` hash stores
    :param hash_stores_max: with "drop_oldest" so many hash stores of a shard are kept [1 to 48, default 16]
    :param erase_block: unit of space of a new volume [bytes, default what the medium asks for, at least 512 KiB]
    :param force: reasons for which a device would be refused, to override
    :param missing_types: "read_only" (default) opens a store for reading where nobody provides one of its
        entry types, "refuse" does not open it
    :param unreadable_is_torn: take clusters that cannot be read, behind all that is known to be durable, for
        the torn end of a log; without it a read error refuses to open
    :param plugins_allow: distributions whose plugins may load; None: all installed
    :param backend_options: options of the backend, by name
    :param progress: called while journals are replayed
    :param plugins: a plugin host that is loaded already

    What is returned holds the volume's lock until it is closed or the process ends. Raises LockedError,
    naming the holder, where somebody else has it; ForeignVolumeError, DamageError, VersionError where what is
    there cannot be used; then nothing was written.
    """
    return Store(
        StoreOptions.of(
            target,
            workers=workers,
            worker=worker,
            shards=shards,
            read_only=read_only,
            create=create,
            index_memory=index_memory,
            on_full=on_full,
            hash_stores_max=hash_stores_max,
            erase_block=erase_block,
            force=force,
            missing_types=missing_types,
            unreadable_is_torn=unreadable_is_torn,
            plugins_allow=plugins_allow,
            backend_options=backend_options,
            progress=progress,
            plugins=plugins,
        )
    )


def create(
    target: str | PathLike[str],
    *,
    shards: int | None = None,
    erase_block: int | None = None,
    force: Collection[str] | None = None,
    overwrite: bool = False,
    plugins_allow: Sequence[str] | None = None,
    backend_options: Mapping[str, Any] | None = None,
) -> None:
    """Format `target`: write an empty store to a file or device, durably.

    Refuses with AlreadyExistsError or ForeignVolumeError what holds anything, unless `overwrite`; a device that
    is mounted, held or foreign with RefusedDeviceError, unless its reason is in `force`. What is refused is
    not written.
    """
    options = StoreOptions.of(
        target,
        shards=shards,
        erase_block=erase_block,
        force=force,
        plugins_allow=plugins_allow,
        backend_options=backend_options,
    )
    if options.read_only:
        raise ConfigError(f"{target}: read_only is set", source=str(target), key="store.read_only")
    host = PluginHost.load(options.plugins_allow)
    backend = open_backend(host, options, create=True)
    try:
        check_formattable(backend, overwrite=overwrite)
        new_volume(backend, host, options).close()
    finally:
        backend.close()


def verify(
    target: str | PathLike[str],
    *,
    progress: Callable[[ReplayProgress], None] | None = None,
    plugins_allow: Sequence[str] | None = None,
    backend_options: Mapping[str, Any] | None = None,
) -> VerifyReport:
    """Read and check everything in a store: both superblocks, every cluster of every journal. Writes nothing.

    What is damaged is in the report, with journal, cluster and offset. A target that holds no store, or that
    somebody writes, raises.
    """
    options = StoreOptions.of(
        target, read_only=True, plugins_allow=plugins_allow, backend_options=backend_options
    )
    return verify_volume(PluginHost.load(options.plugins_allow), options, progress)


def export(
    target: str | PathLike[str],
    directory: str | PathLike[str],
    *,
    journal: int | None = None,
    plugins_allow: Sequence[str] | None = None,
    backend_options: Mapping[str, Any] | None = None,
) -> list[Exported]:
    """Write the journals of a store to plain RFC images in `directory`, one a journal, oldest first by shard.

    :param journal: only the journal with this extent id
    """
    options = StoreOptions.of(
        target, read_only=True, plugins_allow=plugins_allow, backend_options=backend_options
    )
    return export_volume(PluginHost.load(options.plugins_allow), options, directory, journal)
