"""What the processes of one worker are given, one after the other: shards, shared memory, configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from siltstone.index.layout import forsake
from siltstone.index.pending import Pending
from siltstone.index.view import IndexView
from siltstone.log_store.older_views import OlderViews
from siltstone.shard.opening import index_size
from siltstone_workers.config import WorkerConfig
from siltstone_workers.ledger import Ledger
from siltstone_workers.memory import WorkerMemory
from siltstone_workers.starting import module_path

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from siltstone.plugin.hosting import Hosting
    from siltstone.volume.backend import Handover


class WorkerPlace:
    """The place of worker `number` of `count`.

    Each process gets fresh memory: what the one before left is for readers who have begun, until the next begins.
    """

    def __init__(self, hosting: Hosting, number: int, count: int, handover: Handover) -> None:
        self._hosting = hosting
        self._number = number
        self._count = count
        self._handover = handover
        self.shards = tuple(range(number, hosting.volume.superblock.shards, count))
        self.clean = hosting.clean
        self.consumed = hosting.opening.consumed
        #: where modules are found at the opening: a worker that is started again later needs the same
        self.path = module_path()
        self._memory: WorkerMemory | None = None
        # Whether the medium can be mapped is the same for every part of it.
        self._mirrored = hosting.volume.backend.map(0, 4096) is None

    def prepare(self) -> dict[int, Ledger]:
        """Make fresh memory for the next process, and what the core knows of its shards."""
        hosting = self._hosting
        superblock = hosting.volume.superblock
        sizes = [index_size(superblock, shard, hosting.opening) for shard in self.shards]
        # The old one stays until this one is there: who describes the place to readers meets one or the other.
        self._memory = WorkerMemory.share(sizes)
        types = hosting.opening.types
        return {shard: Ledger(shard, Pending(types, superblock.uuid)) for shard in self.shards}

    def forsake(self) -> None:
        """Let no lookup end in what the last process left, now that it is gone: journals and hash stores that are
        named there may be given to others by the next one.
        """
        memory = self._memory
        if memory is not None:
            for place, size in enumerate(memory.sizes):
                forsake(memory.map_index(place, writable=True), size.segments)

    def views(self) -> dict[int, IndexView]:
        """The indexes of the shards, to be read; once their worker has written them."""
        memory, hosting = self._memory, self._hosting
        assert memory is not None
        backend = hosting.volume.backend
        found = {}
        for place, shard in enumerate(self.shards):
            size = memory.sizes[place]

            def map_journal(number: int, offset: int, length: int, place: int = place) -> Buffer:
                if self._mirrored:
                    return memory.mirrors_of(place).map(number, length)
                view = backend.map(offset, length)
                assert view is not None
                return view

            found[shard] = IndexView(
                memory.map_index(place, writable=False),
                hosting.opening.types,
                hosting.volume.superblock.uuid,
                size.segments,
                size.window_bytes,
                map_journal,
                OlderViews(backend, hosting.volume.superblock.uuid, hosting.opening.types).open,
                hosting.volume.superblock.uuid,
            )
        return found

    def inherited(self) -> tuple[int, ...]:
        """The descriptors that a process of this place gets."""
        memory = self._memory
        assert memory is not None
        return (memory.index, memory.mirrors, *self._handover.descriptors)

    def shared(self) -> WorkerMemory:
        """The memory that readers look into; its descriptors stay open as long as somebody has this."""
        memory = self._memory
        assert memory is not None
        return memory

    def describe(self) -> dict[str, Any]:
        """What a reader in another process needs to look into that memory."""
        memory = self._memory
        assert memory is not None
        return {
            "shards": list(self.shards),
            "sizes": [(size.segments, size.window_bytes, size.records) for size in memory.sizes],
            "mirrored": self._mirrored,
        }

    def configuration(self) -> WorkerConfig:
        """What a process of this place is told."""
        hosting, memory = self._hosting, self._memory
        assert memory is not None
        affinity = hosting.worker.affinity
        return WorkerConfig(
            number=self._number,
            shards=self.shards,
            sizes=[(size.segments, size.window_bytes, size.records) for size in memory.sizes],
            memory=memory.index,
            mirrors=memory.mirrors,
            scheme=hosting.backend.scheme,
            rest=hosting.rest,
            force=sorted(hosting.backend_options.force),
            extra=dict(hosting.backend_options.extra),
            descriptors=self._handover.descriptors,
            facts=dict(self._handover.facts),
            plugins_allow=None if hosting.plugins_allow is None else list(hosting.plugins_allow),
            needed=[
                (number, known.name, known.version, known.distribution)
                for number, known in hosting.volume.superblock.entry_types.items()
            ],
            keys=dict(hosting.keys),
            known=sorted({*hosting.known, *hosting.volume.superblock.entry_types}),
            key_entry_bytes=hosting.opening.key_entry_bytes,
            index_memory=hosting.opening.index_memory,
            unreadable_is_torn=hosting.opening.unreadable_is_torn,
            drops_oldest=hosting.opening.on_full.drops_oldest,
            hash_stores_max=hosting.opening.on_full.hash_stores_max,
            threads=max(1, len(os.sched_getaffinity(0)) // self._count),
            niceness=hosting.worker.niceness,
            affinity=None if affinity is None else affinity[self._number % len(affinity)],
            path=self.path,
        )

    def release(self) -> None:
        """Give up the memory; who reads in it still finishes there."""
        self._memory = None
