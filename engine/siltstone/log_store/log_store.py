"""The index of one shard and the journals that it points into: replay, and what readers may look at."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from siltstone.errors import LogStoreFullError, UnknownEntryTypeError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.seal import Position
from siltstone.hash_store.older import OlderStores
from siltstone.hash_store.view import FOUND
from siltstone.index.layout import JOURNALS_MAX
from siltstone.index.table import ABSENT, PUT, LogIndex
from siltstone.journal.log_reader import LogReader
from siltstone.log_store.deletions import Deletions, count_deletions
from siltstone.log_store.entries import entries_of
from siltstone.log_store.mirror import Mirror
from siltstone.log_store.older_views import OlderViews, by_store, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy import uint64
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.format.seal import End
    from siltstone.format.superblock import Extent
    from siltstone.hash_store.view import HashStoreView
    from siltstone.index.types import KeyTypes
    from siltstone.journal.sealed import SealedJournal, Writable
    from siltstone.log_store.memory import IndexSize
    from siltstone.log_store.mirror import MirrorSpace
    from siltstone.volume.backend import Backend

    #: called after each chunk of a replay with (bytes read, entries in them)
    Progress = Callable[[int, int], None]
    #: gets the entries of a chunk as (type, payload), where some of them have no key
    Others = Callable[[list[tuple[int, bytes]]], None]


class JournalTally(NamedTuple):
    """What is in a journal: its entries, those that delete, those without a key, those that the index names."""

    entries: int
    deletions: int
    keyless: int
    named: int


#: where every log starts
START = Position(0, 0)


class LogStore:
    """The index of a shard over its journals.

    One writer at a time (the shard's lock); lookups go through `index` without a lock.

    :param backend: where the journals are
    :param uuid: the volume's
    :param types: which types have keys
    :param size: the shape of the index
    :param memory: zeroed shared memory of that size, for lookups from other processes; without it the index lies
        in private memory
    :param mirrors: where copies of journals lie that the backend cannot map; without it in private memory
    """

    def __init__(
        self,
        backend: Backend,
        uuid: bytes,
        types: KeyTypes,
        size: IndexSize,
        *,
        memory: Buffer | None = None,
        mirrors: MirrorSpace | None = None,
    ) -> None:
        self.backend = backend
        self.uuid = uuid
        self.types = types
        self.size = size
        self.mirrors = mirrors
        self.index = LogIndex(
            size.allocate() if memory is None else memory,
            types,
            uuid,
            size.segments,
            size.window_bytes,
            shared=memory is not None,
        )
        self._older = OlderViews(backend, uuid, types)
        self._hash_stores: list[Extent] = []  # newest first
        self._numbering = threading.Lock()
        self._numbers: dict[int, int] = {}  # extent id to the journal's number in the index
        self._mirrors: dict[int, Mirror] = {}
        self._deletions: Deletions | None = None
        #: bytes of entries that the last checkpoint does not cover
        self.uncovered = 0
        #: what tells the state that the last checkpoint holds from others; None: there is no such checkpoint
        self.checkpointed: object = None

    @property
    def records(self) -> int:
        """Keys that are found here; see :attr:`siltstone.index.mapped.MappedIndex.keys`."""
        return self.index.keys

    @property
    def slots(self) -> int:
        """What the index has a slot for: records, and deletions that are remembered."""
        return self.index.records + self.index.tombstones

    @property
    def room(self) -> int:
        """Keys that surely still fit."""
        return max(0, self.size.records - self.slots)

    def check_room(self, records: int) -> None:
        """LogStoreFullError where the index may not take `records` keys more."""
        # What brings no key needs no room, also where the budget has become smaller than what is here.
        if records and self.slots + records > self.size.records:
            raise LogStoreFullError(
                f"the index holds {self.slots} records and its budget ends at {self.size.records};"
                f" {records} more do not fit: open the store with a larger index_memory",
                limit=self.size.records,
            )

    def slots_for(self, stream: NDArray[np.uint8], records: int) -> int:
        """Slots that a batch of at most `records` new keys may take: deletions may have to be remembered."""
        return records + count_deletions(stream) if self._hash_stores else records

    @property
    def dead(self) -> int:
        """Entries in the journals that no longer count, deletions among them."""
        tallies = [self.index.tally(number) for number in list(self._numbers.values())]
        return sum(entries - keyless - named for entries, _deletions, keyless, named in tallies)

    @property
    def memory(self) -> int:
        """Of the index, and of what is kept of the hash stores [bytes]."""
        views: tuple[HashStoreView, ...] = self.index.older.parts if self.index.older else ()
        return self.index.bytes + sum(view.memory_bytes for view in views)

    # ---- journals

    def add(self, extent: Extent, number: int | None = None, *, unread: bool = False) -> Writable:
        """Let places in a journal's extent be read; where its writer writes: the backend, or a mirror of the extent.

        :param number: which it has in the index; None: one that is free
        :param unread: nobody will replay it, so that each cluster is verified when it is first needed
        """
        number = self._number(extent, number)
        try:
            return self._attach(extent, number, unread=unread)
        except BaseException:
            self._mirrors.pop(extent.id, None)
            del self._numbers[extent.id]
            raise

    def _number(self, extent: Extent, number: int | None) -> int:
        """Give a journal a number of its own: a spare is made while another thread packs."""
        with self._numbering:
            if number is None:
                number = next(
                    (free for free in range(JOURNALS_MAX) if free not in self._numbers.values()), None
                )
            if number is None:
                raise LogStoreFullError(f"a shard has {JOURNALS_MAX} journals already", limit=JOURNALS_MAX)
            self._numbers[extent.id] = number
            return number

    def _attach(self, extent: Extent, number: int, *, unread: bool) -> Writable:
        view = self.backend.map(extent.offset, extent.length)
        mirror = None
        if view is None:
            region = None
            if self.mirrors is not None:
                region = self.mirrors.map(number, extent.length, writable=True)
            mirror = self._mirrors[extent.id] = Mirror(self.backend, extent, region)
            view = mirror.copy
        volume = self.uuid if unread else None
        self.index.attach(number, view, extent.offset, extent.id, extent.generation, volume)
        return mirror or self.backend

    @property
    def can_restore(self) -> bool:
        """Whether its index can be brought back from a checkpoint: where journals need not be read to be in memory."""
        # What is kept as bytes on the medium is what a little-endian machine has in its memory.
        return sys.byteorder == "little" and self.backend.map(0, CLUSTER_SIZE) is not None

    def number_of(self, extent: Extent) -> int:
        """The number of a journal in the index; KeyError where it was never added."""
        return self._numbers[extent.id]

    def has(self, extent: Extent) -> bool:
        """Whether a journal was added."""
        return extent.id in self._numbers

    def remove(self, extent: Extent) -> None:
        """Forget a journal that no key points into; nothing where it was never added."""
        number = self._numbers.get(extent.id)
        if number is not None:
            self.index.detach(number)
        mirror = self._mirrors.pop(extent.id, None)
        if mirror is not None:
            # After the detach: a lookup that is still in it sees that the journal has changed.
            mirror.remove()
        # Last: whoever adds another journal may take the number, and the mirror's place, from here on.
        self._numbers.pop(extent.id, None)

    def target(self, extent: Extent) -> Writable:
        """Where the writer of a journal that was added writes."""
        return self._mirrors.get(extent.id, self.backend)

    def has_room_for_journal(self) -> bool:
        """Whether the index can number one journal more."""
        # One stays for the fresh journal of a recovery.
        return len(self._numbers) < JOURNALS_MAX - 1

    def load_rest(self) -> None:
        """Bring all of the index into memory that still waits in a checkpoint."""
        self.index.load_rest()

    def show_tail(self, journal: SealedJournal, start: int) -> None:
        """Let readers see the active journal's tail; its bytes from `start` on are new where it is the same cluster."""
        writer = journal.writer
        self.index.publish_tail(self._numbers[journal.extent.id], writer.index, journal.tail, start)

    def show_end(self, extent: Extent, end: End) -> None:
        """Let readers find the last cluster of a journal that is closed."""
        self.index.publish_end(self._numbers[extent.id], end.cluster, end.slot)

    def apply(self, extent: Extent, stream: NDArray[np.uint8], positions: NDArray[uint64] | int) -> None:
        """Put and delete in the index what was just appended to a journal.

        :param positions: where each entry is in the extent, or where the first is, behind which they lie [bytes]
        """
        number = self._numbers[extent.id]
        self.index.apply(number, stream, positions)
        self.uncovered += len(stream)
        if self._deletions is not None:
            self._deletions.gather(number, stream, positions)

    def gather_deletions(self, *, begin: bool) -> None:
        """Begin or end to gather what is deleted, for the next hash store that is listed: it may have that.

        The writer's alone.
        """
        self._deletions = Deletions() if begin else None

    def tally(self, extent: Extent) -> JournalTally | None:
        """What is in a journal, or None where it was never added."""
        number = self._numbers.get(extent.id)
        return None if number is None else JournalTally(*self.index.tally(number))

    def living(
        self, extent: Extent, clusters: memoryview, first: int, last_used: int, *, keep_deletes: bool
    ) -> tuple[NDArray[np.uint8], NDArray[uint64], int]:
        """What of some clusters of a journal still counts; see :meth:`siltstone.index.table.LogIndex.living`."""
        return self.index.living(self._numbers[extent.id], clusters, first, last_used, keep_deletes)

    def move(
        self, extent: Extent, stream: NDArray[np.uint8], places: NDArray[uint64], positions: NDArray[uint64]
    ) -> int:
        """Let the index name the copies of entries in a journal; see :meth:`siltstone.index.table.LogIndex.move`."""
        return self.index.move(self._numbers[extent.id], stream, places, positions)

    # ---- hash stores

    @property
    def hash_stores(self) -> tuple[Extent, ...]:
        """The parts of those that lookups go on in."""
        return tuple(self._hash_stores)

    def show_hash_stores(self, extents: Sequence[Extent]) -> None:
        """Let lookups go on in these parts of hash stores; DamageError where the filter of one is not as written.

        The writer's alone, like every change. From when it returns nobody begins to read in others.
        """
        listing = listed(extents)
        older = self._older.open(listing)
        if self._deletions is not None:
            # Before it is listed: a lookup that finds it listed finds these in the index.
            self._deletions.remember(self.index, older)
        self.index.list_older(older, listing)
        self._hash_stores = list(extents)

    def open_hash_stores(self, extents: Sequence[Extent]) -> None:
        """Open these, as :meth:`show_hash_stores` will; its errors."""
        self._older.open(listed(extents))

    def open_hash_store(self, extent: Extent) -> HashStoreView:
        """A part of a hash store that lookups go on in, to read it in order."""
        return self._older.to_read(extent)

    def older_than(self, order: int) -> OlderStores:
        """The hash stores that are older than the one with this place in the replay."""
        older: OlderStores = self.index.older
        number = sum(parts[0].order >= order for parts in by_store(self._hash_stores))
        return OlderStores(
            (view, one._replace(store=one.store - number))
            for view, one in zip(older.parts, older.listing, strict=True)
            if one.store >= number
        )

    def contains_many(self, kind: int, keys: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
        """Which of the (n, size) keys are here, as (n,) bool; how many of those in hash stores alone, so that a
        deletion takes room in the index.
        """
        states = self.index.states_of(kind, keys)
        found: NDArray[np.bool_] = states == PUT
        indexed = int(found.sum())
        left = np.flatnonzero(states == ABSENT)
        if self.index.older is not None:
            found[left] = self.index.older.states_of(kind, np.ascontiguousarray(keys[left])) == FOUND
        return found, int(found.sum()) - indexed

    def drop(self, stream: NDArray[np.uint8], places: NDArray[uint64]) -> int:
        """Take entries out of the index; see :meth:`siltstone.index.table.LogIndex.drop`."""
        return self.index.drop(stream, places)

    def forget_deletions(self, stream: NDArray[np.uint8]) -> None:
        """Forget that keys are deleted that no hash store has any more; see :class:`siltstone.index.table.LogIndex`."""
        self.index.forget_deletions(stream)

    def shrink(self) -> None:
        """Give back the memory that the index no longer needs."""
        self.index.shrink()

    # ---- replay

    def replay(
        self,
        extent: Extent,
        end: End,
        *,
        progress: Progress | None = None,
        others: Others | None = None,
        covered: Position = START,
    ) -> bytes:
        """Put and delete what a journal says from its start to `end`; the entries of its last cluster.

        Each cluster is verified before it counts: DamageError names what is not as it was written.

        :param covered: what lies before this is in the index already, and only read where it is in the same cluster
        """
        reader = LogReader(self.backend, self.uuid, extent)
        number = self._numbers[extent.id]
        mirror = self._mirrors.get(extent.id)
        for first, data in reader.chunks(end.cluster, covered.cluster):
            if mirror is not None:
                mirror.fill(reader.offset_of(first), data)
            skipped = covered.byte if first == covered.cluster else 0
            self._take(extent, data, first, CLUSTER_SIZE, progress, others, skipped)
        last, slot = reader.last_cluster(end)
        if mirror is not None:
            at = reader.offset_of(end.cluster) if slot is None else extent.offset + slot * CLUSTER_SIZE
            mirror.fill(at, last)
        self.index.publish_end(number, end.cluster, slot)
        if covered < end.position or covered == START:
            skipped = covered.byte if end.cluster == covered.cluster else 0
            self._take(extent, last, end.cluster, end.byte, progress, others, skipped)
        return bytes(last[: end.byte])

    def hand_over(self, extent: Extent, end: End, others: Others) -> None:
        """Let others have the entries of a journal up to `end`, which are in the index already."""
        reader = LogReader(self.backend, self.uuid, extent)
        for _first, data in reader.chunks(end.cluster):
            others(entries_of(data, CLUSTER_SIZE))
        if end.byte:
            others(entries_of(reader.last_cluster(end)[0], end.byte))

    def _take(
        self,
        extent: Extent,
        data: memoryview,
        first: int,
        last_used: int,
        progress: Progress | None,
        others: Others | None,
        skipped: int,
    ) -> None:
        number = self._numbers[extent.id]
        entries, without_key, unknown = self.index.apply_clusters(number, data, first, last_used, skipped)
        self.uncovered += len(data) - CLUSTER_SIZE + last_used - skipped
        if unknown is not None:
            raise UnknownEntryTypeError(
                f"{self.backend.url}: journal {extent.id}, at byte {extent.offset + unknown} of the volume: an entry"
                " of a type that the superblock does not name",
                journal=extent.id,
                offset=extent.offset + unknown,
            )
        if without_key and others is not None:
            others(entries_of(data, last_used, skipped))
        if progress is not None:
            progress(len(data), entries)
