"""The core: owns the plugins, the volume and its shards, and keeps house while a store is open."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from siltstone.core.consuming import Consumers
from siltstone.core.media import open_volume, recorded
from siltstone.errors import ClosedError, PluginError, ReadOnlyError, VersionError
from siltstone.format.constants import ENTRY_SIZE_MAX
from siltstone.index.lookup import Reader
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes
from siltstone.plugin.host import PluginHost
from siltstone.shard.group import ShardGroup
from siltstone.shard.opening import OpenOptions, open_shards, open_shards_read_only

if TYPE_CHECKING:
    from siltstone.core.options import StoreOptions
    from siltstone.format.superblock import Superblock
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.log_store.log_store import LogStore
    from siltstone.plugin.types import EntryType
    from siltstone.volume.volume import Volume

_log = logging.getLogger(__name__)
#: seconds between looks at what is due
_TICK_SECONDS = 0.25


class Core:
    """An open store without its front door.

    Made by :meth:`open`. `group` is None where it is open for reading only; `reader` looks up keys without
    a lock; `router` says which shard a key belongs to.
    """

    def __init__(self, options: StoreOptions) -> None:
        self.options = options
        self.host = options.plugins or PluginHost.load(options.plugins_allow)
        #: what the front door's calls mean where they name no type
        self.default_type: EntryType = self.host.entry_type_named("hash_info")
        self.group: ShardGroup | None = None
        self.read_only_reason = ""
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._keeper: threading.Thread | None = None
        self._type_lock = threading.Lock()
        self.volume: Volume = open_volume(self.host, options)
        try:
            self._open_shards()
        except BaseException:
            self.volume.close()
            raise

    def _open_shards(self) -> None:
        superblock = self.volume.superblock
        self.was_clean = superblock.clean
        provided = self._check_types(superblock)
        keys = {
            number: kind.key
            for number, kind in self.host.entry_types.items()
            if kind.key is not None and (number in provided or number not in superblock.entry_types)
        }
        self.types = KeyTypes(keys, superblock.entry_types)
        consumers = Consumers(self.host, provided)
        opening = OpenOptions(
            types=self.types,
            key_entry_bytes=min(
                (2 + offset + size for offset, size in keys.values()), default=ENTRY_SIZE_MAX
            ),
            index_memory=self.options.index_memory,
            unreadable_is_torn=self.options.unreadable_is_torn,
            threads=max(1, min(superblock.shards, os.cpu_count() or 1)),
            progress=self.options.progress,
            others=consumers.of_shard,
        )
        numbers = range(superblock.shards)
        self.recoveries: tuple[JournalRecovery, ...]
        self.stores: list[LogStore]
        if self.read_only_reason:
            self.stores, recoveries = open_shards_read_only(self.volume, numbers, opening)
            self.recoveries = tuple(recoveries)
        else:
            self.volume.begin_epoch()
            shards, recoveries = open_shards(self.volume, numbers, opening, clean=superblock.clean)
            self.recoveries = tuple(recoveries)
            self.stores = [shard.store for shard in shards]
            self.group = ShardGroup(self.volume, shards, recoveries, self._wake.set)
        self._reader: Reader | None = Reader([store.index for store in self.stores])
        self.router = Router(self.types, superblock.uuid, superblock.shards)
        if self.group is not None:
            self._keeper = threading.Thread(
                target=self._keep_house, name="siltstone-housekeeper", daemon=True
            )
            self._keeper.start()

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
        reader = self._reader
        if reader is None:
            raise ClosedError(f"{self.volume.backend.url}: the store is closed", what="store")
        return reader

    def writable(self) -> ShardGroup:
        """The shards, or ReadOnlyError."""
        if self.group is None:
            raise ReadOnlyError(
                f"{self.volume.backend.url}: open for reading only: {self.read_only_reason}",
                reason=self.read_only_reason,
            )
        return self.group

    def _keep_house(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()
            if self.group is not None and not self._stop.is_set():
                self.group.tick()

    def close(self) -> None:
        """Flush, mark the volume clean, give it up. What failed is raised when everything is given up."""
        if self.volume.is_forked:
            return  # it is the parent's: its threads and locks are not here, and nothing of it may be written
        try:
            self._end_housekeeping()
            if self.group is not None:
                self.group.close()
        finally:
            self._release()

    def abandon(self) -> None:
        """Give the volume up without a flush or a mark, as if the process had died. For tests."""
        self._end_housekeeping()
        self._release()

    def _end_housekeeping(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join()

    def _release(self) -> None:
        """Give up the volume, and with the last lookup that runs the maps of its journals."""
        self.volume.close()
        self._reader = None
        self.stores = []
        if self.group is not None:
            self.group.release()
