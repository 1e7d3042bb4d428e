"""Packing: what still counts of some neighbouring journals moves to fresh ones, and their space is free again.

Nothing waits for it: entries are copied piece by piece, each under the shard's lock for a moment. What is given up
was overwritten or deleted by entries that are flushed before the superblock lets the old journals go; so a crash at
any point leaves the old journals or the new ones, and both say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from siltstone.errors import StateError
from siltstone.format.constants import (
    CLUSTER_SIZE,
    JOURNAL_SIZE_MAX,
)
from siltstone.index.table import NO_PLACE
from siltstone.journal.log_reader import LogReader
from siltstone.shard.changes import Pack, Packed, TakeEmpty
from siltstone.shard.choosing import PIECE_CLUSTERS, copied_bytes, pieces
from siltstone.shard.filling import Unflushed, give_back, switching, take_to_clean
from siltstone.volume.allocator import round_to_erase_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy import uint64
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.journal.sealed import SealedJournal
    from siltstone.shard.choosing import Run
    from siltstone.shard.shard import Shard


def clusters_of(shard: Shard, source: Extent, count: int) -> Iterator[tuple[memoryview, int, int]]:
    """`count` clusters of a closed journal after the other, the number of the first and the bytes used in the last."""
    volume = shard.volume
    end = source.end
    assert end is not None
    reader = LogReader(volume.backend, volume.superblock.uuid, source)
    for first, data in reader.chunks(end.cluster):
        for start in range(0, len(data) // CLUSTER_SIZE, count):
            yield data[start * CLUSTER_SIZE :][: count * CLUSTER_SIZE], first + start, CLUSTER_SIZE
    last, _slot = reader.last_cluster(end)
    yield last, end.cluster, end.byte


class _Piece(NamedTuple):
    """Entries of one source that count, packed; where the index names them."""

    stream: NDArray[np.uint8]
    places: NDArray[uint64]


class _Output:
    """A fresh journal, written and not yet flushed; what it holds and where."""

    def __init__(self, journal: SealedJournal) -> None:
        self.journal = journal
        self.copies: list[tuple[_Piece, NDArray[uint64]]] = []


class Packing:
    """One run of journals on its way into fresh ones. Copies and switches once.

    Takes the memory of what is kept, at most the largest journal's.

    :param shard: theirs
    :param run: what is packed
    :param flush: returns once all that was appended to the shard is durable
    """

    #: that are looked through at once: half a millisecond in which the shard takes no entries
    piece_clusters = 64

    def __init__(self, shard: Shard, run: Run, flush: Callable[[], None]) -> None:
        self._shard = shard
        self._run = run
        self._flush = flush
        self._unflushed = Unflushed(shard.volume)
        self._pieces: list[_Piece] = []
        self._held = 0
        self._held_clusters = 0
        self._largest = 0
        self._outputs: list[_Output] = []

    def carry_out(self) -> None:
        """Copy what counts, let the index name the copies, free the sources; durable when it returns.

        DiskFullError where there is no space for the copies, DamageError where a source is not as it was written:
        nothing is changed then.
        """
        try:
            for source in self._run.sources:
                self._copy(source)
            self._top_up()
            self._write_out()
            self._make_durable()
        except BaseException:
            self._give_up()
            raise
        with switching(self._shard):
            self._switch()

    # ---- copying

    def _top_up(self) -> None:
        """Whatever else is to go to the last of the fresh journals."""

    def _copy(self, source: Extent) -> None:
        for clusters, first, last_used in self._clusters(source):
            self._keep(source, clusters, first, last_used)

    def _clusters(self, source: Extent) -> Iterator[tuple[memoryview, int, int]]:
        return clusters_of(self._shard, source, self.piece_clusters)

    def _keep(self, source: Extent, clusters: memoryview, first: int, last_used: int) -> None:
        stream, places, largest = self._living(source, clusters, first, last_used)
        if len(places):
            self._add(stream, places, largest, len(clusters) // CLUSTER_SIZE)

    def _living(
        self, source: Extent, clusters: memoryview, first: int, last_used: int
    ) -> tuple[NDArray[np.uint8], NDArray[uint64], int]:
        shard = self._shard
        with shard.lock:
            shard.check()
            return shard.store.living(source, clusters, first, last_used, keep_deletes=not self._run.oldest)

    def _add(self, stream: NDArray[np.uint8], places: NDArray[uint64], largest: int, clusters: int) -> None:
        """Let entries of so many clusters go to a fresh journal."""
        if self._size(len(stream), largest, clusters) > self._most():
            self._write_out()
        self._pieces.append(_Piece(stream.copy(), places.copy()))
        self._held += len(stream)
        self._held_clusters += clusters
        self._largest = max(self._largest, largest)

    def _size(self, more: int = 0, largest: int = 0, clusters: int = 0) -> int:
        """Bytes of a journal that takes what has gathered, and `more` bytes of entries of so many clusters."""
        return copied_bytes(self._held + more, max(largest, self._largest), self._held_clusters + clusters)

    def _most(self) -> int:
        """Bytes of the longest journal that copies can go to."""
        return JOURNAL_SIZE_MAX

    def _write_out(self) -> None:
        """Write what has gathered to a journal of its own."""
        if not self._pieces:
            return
        shard = self._shard
        extent = take_to_clean(shard, TakeEmpty, self._size())
        try:
            output = _Output(shard.new_journal(extent))
        except BaseException:
            give_back(shard, extent)
            raise
        self._outputs.append(output)
        output.journal.prepare()
        for piece in self._pieces:
            output.copies.append((piece, output.journal.append_stream(piece.stream)))
        self._pieces, self._held, self._held_clusters = [], 0, 0

    def _make_durable(self) -> None:
        # What made the entries that are given up dead must not be lost after them.
        self._flush()
        begun = [output.journal for output in self._outputs if output.journal.begin_flush()]
        self._unflushed.flush()
        for journal in begun:
            journal.end_flush()

    def _give_up(self) -> None:
        for output in self._outputs:
            self._shard.store.remove(output.journal.extent)
            give_back(self._shard, output.journal.extent)

    # ---- switching

    def _switch(self) -> None:
        packed = self._show_outputs()
        self._let_go()
        sources = tuple(source.id for source in self._run.sources)
        self._shard.volume.publish(Pack(self._shard.number, sources, packed))

    def _show_outputs(self) -> tuple[Packed, ...]:
        """Let the index name the copies."""
        shard, store = self._shard, self._shard.store
        packed = []
        for output in self._outputs:
            extent, end = output.journal.extent, output.journal.end
            store.show_end(extent, end)
            packed.append(Packed(extent.id, end))
            for piece, positions in output.copies:
                with shard.lock:
                    store.move(extent, piece.stream, piece.places, positions)
            output.copies = []
        return tuple(packed)

    def _let_go(self) -> None:
        """Let no lookup read the sources: once the superblock has freed them, anything may be written there."""
        shard, store = self._shard, self._shard.store
        for source in self._run.sources:
            tally = store.tally(source)
            if tally is None or tally.named:
                raise StateError(
                    f"shard {shard.number}: journal {source.id} was copied, and the index still names it: {tally}",
                    what=f"journal {source.id}",
                    state="named",
                )
        with shard.lock:
            for source in self._run.sources:
                store.remove(source)


class Cleaning(Packing):
    """As packing, where space is so short that the copies must go to whatever pieces there are, and fill them.

    :param behind: the journal next to the run; some of its entries go where there is room left. They are there twice
        until it is packed as well, and a replay in between names the second. No other may give some: what is older than
        they are, and newer than the copies, would count over these once their own journal is gone
    """

    piece_clusters = PIECE_CLUSTERS

    def __init__(
        self, shard: Shard, run: Run, flush: Callable[[], None], behind: Extent | None = None
    ) -> None:
        super().__init__(shard, run, flush)
        self._behind = behind

    def _top_up(self) -> None:
        # Elsewhere deletions would have to be copied along.
        if self._run.oldest and self._held and self._behind is not None:
            for piece in self._clusters(self._behind):
                stream, places, largest = self._living(self._behind, *piece)
                # What has no key is named by nothing, and would count twice.
                whole = bool((places == NO_PLACE).any())
                if whole or self._blocks(len(stream), largest, 1) > self._blocks():
                    return
                if len(places):
                    self._add(stream, places, largest, 1)

    def _blocks(self, more: int = 0, largest: int = 0, clusters: int = 0) -> int:
        """As :meth:`_size`, in whole erase blocks."""
        return round_to_erase_blocks(
            self._size(more, largest, clusters), self._shard.volume.superblock.erase_block
        )

    def _most(self) -> int:
        return max(pieces(self._shard.volume.superblock, self._shard.number), default=0)
