"""Packing: what still counts of some neighbouring journals moves to fresh ones, and their space is free again.

Nothing waits for it: entries are copied piece by piece, each under the shard's lock for a moment. What is given up
was overwritten or deleted by entries that are flushed before the superblock lets the old journals go; so a crash at
any point leaves the old journals or the new ones, and both say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from siltstone.errors import DiskFullError, StateError
from siltstone.format.constants import (
    BODY_SIZE,
    CLUSTER_SIZE,
    ENTRY_SIZE_MAX,
    JOURNAL_SIZE_MAX,
    SLOT_CLUSTERS,
)
from siltstone.format.superblock import CLOSED
from siltstone.journal.log_reader import LogReader
from siltstone.shard import space
from siltstone.shard.changes import Pack, Packed, TakeEmpty, TakeFresh
from siltstone.shard.filling import Unflushed, give_back, switching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy import uint64
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.journal.sealed import SealedJournal
    from siltstone.log_store.log_store import JournalTally
    from siltstone.shard.shard import Shard

#: clusters that are looked through at once: half a millisecond in which the shard takes no entries
_PIECE_CLUSTERS = 64
#: most bytes of entries that one fresh journal gets
_OUTPUT_BYTES = (JOURNAL_SIZE_MAX // CLUSTER_SIZE - SLOT_CLUSTERS - 2) * (BODY_SIZE - ENTRY_SIZE_MAX)


class Candidate(NamedTuple):
    """A closed journal that may be packed, and what is in it."""

    extent: Extent
    tally: JournalTally

    def kept(self, *, oldest: bool) -> int:
        """At most so many of its entries still count; `oldest`: nothing older has what its deletions delete."""
        held = self.tally.named + self.tally.keyless
        return held if oldest else min(self.tally.entries, held + self.tally.deletions)


class Run(NamedTuple):
    """Neighbouring journals that are packed together, oldest first; `oldest`: no journal is older."""

    sources: tuple[Extent, ...]
    oldest: bool


def choose(candidates: Sequence[Candidate]) -> Run | None:
    """Which of a shard's closed journals, oldest first, are more than half dead; None where packing does not pay.

    The oldest ones together, since only there deletions are given up: so that what is put and deleted for ever stays
    within twice what is alive. Else any neighbours of which each is more than half dead.
    """
    entries = kept = 0
    for number, candidate in enumerate(candidates, 1):
        entries += candidate.tally.entries
        kept += candidate.kept(oldest=True)
        if 2 * kept < entries or entries == 0:
            return Run(tuple(each.extent for each in candidates[:number]), oldest=True)
    run: list[Extent] = []
    for candidate in candidates:
        if 2 * candidate.kept(oldest=False) < candidate.tally.entries:
            run.append(candidate.extent)
        elif run:
            break
    return Run(tuple(run), oldest=False) if run else None


def worth_packing(shard: Shard) -> Run | None:
    """Journals of a shard that are more than half dead, or None."""
    candidates = []
    for extent in shard.volume.superblock.journals(shard.number):
        tally = shard.store.tally(extent)
        if extent.state == CLOSED and tally is not None:
            candidates.append(Candidate(extent, tally))
    return choose(candidates)


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

    :param shard: theirs
    :param run: what is packed
    :param flush: returns once all that was appended to the shard is durable
    """

    def __init__(self, shard: Shard, run: Run, flush: Callable[[], None]) -> None:
        self._shard = shard
        self._run = run
        self._flush = flush
        self._unflushed = Unflushed(shard.volume)
        self._pieces: list[_Piece] = []
        self._held = 0
        self._largest = 0
        self._outputs: list[_Output] = []

    def carry_out(self) -> None:
        """Copy what counts, let the index name the copies, free the sources; durable when it returns.

        Takes the memory of what is kept, at most the largest journal's. DiskFullError where there is no space for
        the copies, DamageError where a source is not as it was written: nothing is changed then.
        """
        try:
            for source in self._run.sources:
                self._copy(source)
            self._write_out()
            self._make_durable()
        except BaseException:
            self._give_up()
            raise
        with switching(self._shard):
            self._switch()

    # ---- copying

    def _copy(self, source: Extent) -> None:
        volume = self._shard.volume
        end = source.end
        assert end is not None
        reader = LogReader(volume.backend, volume.superblock.uuid, source)
        for first, data in reader.chunks(end.cluster):
            for start in range(0, len(data) // CLUSTER_SIZE, _PIECE_CLUSTERS):
                piece = data[start * CLUSTER_SIZE :][: _PIECE_CLUSTERS * CLUSTER_SIZE]
                self._keep(source, piece, first + start, CLUSTER_SIZE)
        last, _slot = reader.last_cluster(end)
        self._keep(source, last, end.cluster, end.byte)

    def _keep(self, source: Extent, clusters: memoryview, first: int, last_used: int) -> None:
        stream, places, largest = self._living(source, clusters, first, last_used)
        if len(places):
            self._add(stream, places, largest)

    def _living(
        self, source: Extent, clusters: memoryview, first: int, last_used: int
    ) -> tuple[NDArray[np.uint8], NDArray[uint64], int]:
        shard = self._shard
        with shard.lock:
            shard.check()
            return shard.store.living(source, clusters, first, last_used, keep_deletes=not self._run.oldest)

    def _add(self, stream: NDArray[np.uint8], places: NDArray[uint64], largest: int) -> None:
        """Let entries go to a fresh journal."""
        if self._held + len(stream) > _OUTPUT_BYTES:
            self._write_out()
        self._pieces.append(_Piece(stream.copy(), places.copy()))
        self._held += len(stream)
        self._largest = max(self._largest, largest)

    def _write_out(self) -> None:
        """Write what has gathered to a journal of its own."""
        if not self._pieces:
            return
        shard = self._shard
        # A cluster is left when the next entry does not fit: less than the largest one is lost in each.
        clusters = -(-self._held // (BODY_SIZE - 1 - self._largest)) + 1
        extent = self._take((SLOT_CLUSTERS + clusters) * CLUSTER_SIZE)
        try:
            output = _Output(shard.new_journal(extent))
        except BaseException:
            give_back(shard, extent)
            raise
        self._outputs.append(output)
        output.journal.prepare()
        for piece in self._pieces:
            output.copies.append((piece, output.journal.append_stream(piece.stream)))
        self._pieces, self._held = [], 0

    def _take(self, size: int) -> Extent:
        """An empty journal of `size` bytes; the shard's reserve where there is no other space and it suffices."""
        shard, volume = self._shard, self._shard.volume
        try:
            superblock = volume.publish(TakeEmpty(shard.number, size), optional=True)
        except DiskFullError:
            if volume.poisoned or size > space.first_size(volume.superblock.erase_block):
                raise
            superblock = volume.publish(TakeFresh((shard.number,), kept=True))
        return space.taken_by(superblock, shard.number)

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
