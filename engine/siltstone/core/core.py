"""The core: owns the plugins, the volume and what runs its shards while a store is open."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from siltstone.core.consuming import Consumers
from siltstone.core.media import locate, open_unlocked, open_volume, recorded
from siltstone.core.read_only import ReadOnlyShards
from siltstone.core.starting import StartingShards
from siltstone.errors import ConfigError, LockedError, PluginError, ReadOnlyError, VersionError
from siltstone.format.constants import ENTRY_SIZE_MAX
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes
from siltstone.plugin.host import PluginHost
from siltstone.plugin.hosting import IN_PROCESS, WORKER_PROCESSES, Hosting, Joining, ShardHost
from siltstone.shard.merging import OnFull
from siltstone.shard.opening import OpenOptions

if TYPE_CHECKING:
    from siltstone.core.options import StoreOptions
    from siltstone.format.superblock import Superblock
    from siltstone.lookup.reader import Reader
    from siltstone.plugin.hosting import OpenShards
    from siltstone.plugin.types import EntryType
    from siltstone.volume.volume import Volume

_log = logging.getLogger(__name__)


def workers_by_default() -> int:
    """One worker for each processor that this process may use."""
    return len(os.sched_getaffinity(0))


class Core:
    """An open store without its front door.

    `shards` runs the shards, or serves what recovery found where the store is open for reading only; `router`
    says which shard a key belongs to.
    """

    def __init__(self, options: StoreOptions) -> None:
        self.options = options
        self.host = options.plugins or PluginHost.load(options.plugins_allow)
        #: what the front door's calls mean where they name no type
        self.default_type: EntryType = self.host.entry_type_named("hash_info")
        self.read_only_reason = ""
        self._type_lock = threading.Lock()
        self.shards: OpenShards
        try:
            self.volume: Volume = open_volume(self.host, options)
        except LockedError as error:
            if not options.read_only:
                raise
            self._join(error)
            return
        try:
            self._open_shards()
        except BaseException:
            self.volume.close()
            raise

    def _join(self, locked: LockedError) -> None:
        """Look into a store that another process has open for writing, where that lets readers in."""
        self.volume = open_unlocked(self.host, self.options)
        try:
            superblock = self.volume.superblock
            self.was_clean = superblock.clean
            provided = self._check_types(superblock)
            types = KeyTypes(self._keys(superblock, provided), superblock.entry_types)
            joining = Joining(self.volume, types)
            joins = [host.join for host in self.host.shard_hosts.values() if host.join is not None]
            found = next((shards for join in joins if (shards := join(joining)) is not None), None)
            if found is None:
                raise locked
            self.shards = found
            self.router = Router(types, superblock.uuid, superblock.shards)
            self.read_only_reason = "another process has it open for writing"
        except BaseException:
            self.volume.close()
            raise

    def _keys(self, superblock: Superblock, provided: set[int]) -> dict[int, tuple[int, int]]:
        """Where the keys of entries lie, by type: of what the store holds, and of what may be put into it."""
        return {
            number: kind.key
            for number, kind in self.host.entry_types.items()
            if kind.key is not None and (number in provided or number not in superblock.entry_types)
        }

    def _open_shards(self) -> None:
        superblock = self.volume.superblock
        self.was_clean = superblock.clean
        provided = self._check_types(superblock)
        keys = self._keys(superblock, provided)
        types = KeyTypes(keys, superblock.entry_types)
        consumers = Consumers(self.host, provided)
        opening = OpenOptions(
            types=types,
            # A deletion has the type where an entry has what stands before its key.
            key_entry_bytes=min(
                (2 + min(offset, 1) + size for offset, size in keys.values()), default=ENTRY_SIZE_MAX
            ),
            index_memory=self.options.index_memory,
            unreadable_is_torn=self.options.unreadable_is_torn,
            on_full=OnFull(self.options.on_full == "drop_oldest", self.options.hash_stores_max),
            threads=max(1, min(superblock.shards, os.cpu_count() or 1)),
            progress=self.options.progress,
            others=consumers.of_shard,
            consumed=consumers.consumed,
        )
        self.router = Router(types, superblock.uuid, superblock.shards)
        if self.read_only_reason:
            self.shards = ReadOnlyShards(self.volume, opening)
            return
        workers = self._workers()
        provider = self.host.shard_host(WORKER_PROCESSES if workers else IN_PROCESS)
        kind, rest, backend_options = locate(self.host, self.options, create=False)
        starting: StartingShards | None = None
        early = self.was_clean and bool(superblock.journals()) and not consumers.consumed
        if workers and early and not self.options.worker.wait:
            starting = StartingShards(self.volume, replace(opening, progress=None))
        self.volume.begin_epoch()
        hosting = Hosting(
            volume=self.volume,
            clean=self.was_clean,
            opening=opening,
            keys=keys,
            known=frozenset(superblock.entry_types),
            plugins_allow=self.options.plugins_allow,
            backend=kind,
            rest=rest,
            backend_options=backend_options,
            workers=workers,
            worker=self.options.worker,
        )
        if starting is None or not starting.can_read:
            self.shards = provider.open(hosting)
            return
        self.shards = starting
        starting.start(lambda: provider.open(hosting), self._has_started)

    def _has_started(self, shards: ShardHost) -> None:
        self.shards = shards

    def _workers(self) -> int:
        """How many worker processes there are to be: as many as asked for, at most one a shard."""
        wanted, shards = self.options.workers, self.volume.superblock.shards
        kind, _rest, _options = locate(self.host, self.options, create=False)
        if wanted == 0:
            return 0
        if kind.attach is None:
            if wanted is None:
                return 0
            raise ConfigError(
                f"workers {wanted}: a {kind.scheme} volume cannot be opened by worker processes; must be 0",
                source="workers",
                key="workers",
            )
        if wanted is None:
            wanted = workers_by_default()
        return min(wanted, shards)

    # ---- entry types

    def _check_types(self, superblock: Superblock) -> set[int]:
        """Ids of the store's types that somebody provides; where one is missing the store is for reading only.

        A plugin may have the id of a type that the store means otherwise: it gets nothing of it.
        """
        provided = set()
        if self.options.read_only:
            self.read_only_reason = "opened with read_only"
        for number, known in superblock.entry_types.items():
            try:
                self.host.require_entry_type(number, known.name, known.version, known.distribution)
                provided.add(number)
            except VersionError:
                raise
            except PluginError as error:
                if self.options.missing_types == "refuse":
                    raise
                _log.warning("%s: open for reading only: %s", self.volume.backend.url, error)
                self.read_only_reason = self.read_only_reason or str(error)
        return provided

    def record_type(self, entry_type: EntryType) -> None:
        """Let the superblock say that the volume may hold entries of this type; durable before the first is written."""
        if entry_type.id in self.volume.superblock.entry_types:
            return
        with self._type_lock:
            known = recorded(self.host, entry_type)
            self.volume.publish(
                lambda superblock: replace(
                    superblock, entry_types={**superblock.entry_types, entry_type.id: known}
                )
            )

    # ---- life

    @property
    def reader(self) -> Reader:
        """Looks up keys; a lookup that runs while the core closes finishes on what it holds."""
        return self.shards.reader

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be put."""
        return self.read_only_reason != ""

    def writable(self) -> ShardHost:
        """The shards, or ReadOnlyError."""
        if self.read_only_reason:
            raise ReadOnlyError(
                f"{self.volume.backend.url}: open for reading only: {self.read_only_reason}",
                reason=self.read_only_reason,
            )
        # Asked at every put: what they are is settled by whether there is such a reason.
        return self.shards  # type: ignore[return-value]

    def close(self) -> None:
        """Flush, mark the volume clean, give it up. What failed is raised when everything is given up."""
        if self.volume.is_forked:
            return  # it is the parent's: its threads and locks are not here, and nothing of it may be written
        try:
            self.shards.close()
        finally:
            self.volume.close()

    def abandon(self) -> None:
        """Give the volume up without a flush or a mark, as if the process had died. For tests."""
        try:
            self.shards.abandon()
        finally:
            self.volume.close()
