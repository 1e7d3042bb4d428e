"""Which journals of a shard are packed: those that are mostly dead, or, where space is short, whatever gives some."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from siltstone.format.constants import BODY_SIZE, CLUSTER_SIZE, ENTRY_SIZE_MAX, SLOT_CLUSTERS
from siltstone.format.superblock import CLOSED, KIND_FREE
from siltstone.shard import space
from siltstone.volume.allocator import reserves_of, round_to_erase_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from siltstone.format.superblock import Extent, Superblock
    from siltstone.log_store.log_store import JournalTally
    from siltstone.shard.shard import Shard

#: part of what is copied that cleaning is to give, where it is not for deletions
WORTH = 1 / 16
#: clusters that cleaning looks through at once: as few as can be, so that little of a short extent stays empty
PIECE_CLUSTERS = 1
#: fewest bytes of a deletion: its header and a key of one byte
_DELETION_MIN = 4


class Candidate(NamedTuple):
    """A closed journal that may be packed, and what is in it."""

    extent: Extent
    tally: JournalTally

    @property
    def clusters(self) -> int:
        """How many clusters hold them."""
        return 0 if self.extent.end is None else self.extent.end.cluster + 1

    @property
    def dead(self) -> int:
        """How many of its entries no longer count, deletions among them."""
        return self.tally.entries - self.tally.named - self.tally.keyless

    def kept(self, *, oldest: bool) -> int:
        """At most so many of its entries still count; `oldest`: nothing older has what its deletions delete."""
        held = self.tally.named + self.tally.keyless
        return held if oldest else min(self.tally.entries, held + self.tally.deletions)

    def kept_bytes(self, *, oldest: bool) -> int:
        """About so many bytes of its entries still count; more where what is dead is smaller than what is not."""
        end = self.extent.end
        used = 0 if end is None else end.cluster * BODY_SIZE + end.byte
        puts = self.tally.entries - self.tally.deletions
        kept = self.kept(oldest=oldest)
        if not oldest or kept > puts:
            return -(-used * kept // max(1, self.tally.entries))
        return -(-(used - self.tally.deletions * _DELETION_MIN) * kept // max(1, puts))


class Run(NamedTuple):
    """Neighbouring journals that are packed together, oldest first.

    :param oldest: nothing older holds anything that their deletions delete
    """

    sources: tuple[Extent, ...]
    oldest: bool


def choose(candidates: Sequence[Candidate]) -> Run | None:
    """Which of a shard's closed journals, oldest first, are more than half dead or empty; None where none is.

    The oldest ones together, since only there deletions are given up: so that what is put and deleted for ever stays
    within twice what is alive. Else any neighbours of which each is more than half dead.
    """
    entries = kept = 0
    for number, candidate in enumerate(candidates, 1):
        entries += candidate.tally.entries
        kept += candidate.kept(oldest=True)
        if _is_mostly_dead(kept, entries):
            return Run(tuple(each.extent for each in candidates[:number]), oldest=True)
    run: list[Extent] = []
    for candidate in candidates:
        if _is_mostly_dead(candidate.kept(oldest=False), candidate.tally.entries):
            run.append(candidate.extent)
        elif run:
            break
    return Run(tuple(run), oldest=False) if run else None


def _is_mostly_dead(kept: int, entries: int) -> bool:
    """Also what never took an entry, because the batch that came did not fit."""
    return entries == 0 or 2 * kept < entries


def choose_any(
    candidates: Sequence[Candidate], room: Sequence[int], erase_block: int, *, worth: float = 0.0
) -> Run | None:
    """Neighbours whose space, once it is free, is more than their copies took.

    Those that give most for what is copied, or None where nothing gives a whole erase block.

    :param room: of what lengths the extents are that the copies may go to, the longest first
    :param worth: they give at least this part of what is copied
    """
    best = worth
    found: Run | None = None
    clean = True
    for start, first in enumerate(candidates):
        oldest, clean = clean, clean and first.dead == 0
        for stop, held, kept in _windows(candidates, start, room, erase_block, oldest=oldest):
            # Whole erase blocks both.
            gives = (held - kept) / (kept + erase_block)
            if gives > best:
                best = gives
                found = Run(tuple(each.extent for each in candidates[start:stop]), oldest)
    return found


def choose_first(candidates: Sequence[Candidate], room: Sequence[int], erase_block: int) -> Run | None:
    """The oldest journals in which anything is dead, as many as `room` takes; None where nothing is.

    What they give may be less than an erase block; but once they are clean, so may be what is newer, and loses the
    deletions of what they held.
    """
    for start, first in enumerate(candidates):
        if first.dead:
            stops = [
                stop for stop, _held, _kept in _windows(candidates, start, room, erase_block, oldest=True)
            ]
            return Run(tuple(each.extent for each in candidates[start : stops[-1]]), True) if stops else None
    return None


def _windows(
    candidates: Sequence[Candidate], start: int, room: Sequence[int], erase_block: int, *, oldest: bool
) -> Iterator[tuple[int, int, int]]:
    """Ends of runs from `start` on whose copies `room` takes; bytes of their extents, and about those of the copies."""
    entries = kept = held = clusters = 0
    for stop, candidate in enumerate(candidates[start:], start + 1):
        entries += candidate.kept(oldest=oldest)
        kept += candidate.kept_bytes(oldest=oldest)
        held += candidate.extent.length
        clusters += candidate.clusters
        copied = _spread(entries, kept, clusters, room, erase_block)
        if copied is None:
            return
        yield stop, held, copied


def _spread(
    entries: int, entry_bytes: int, clusters: int, room: Sequence[int], erase_block: int
) -> int | None:
    """About the bytes that so many entries, of so many clusters, take of extents of these lengths; None where they do
    not fit."""
    if entries == 0:
        return 0
    # None is taken for larger than twice the mean.
    largest = min(ENTRY_SIZE_MAX, 2 * entry_bytes // entries)
    taken = 0
    for length in room:
        needed = round_to_erase_blocks(copied_bytes(entry_bytes, largest, clusters), erase_block)
        if needed <= length:
            return taken + needed
        taken += length
        # What is looked through at once goes whole to one of them.
        filled = max(0, length // CLUSTER_SIZE - SLOT_CLUSTERS - PIECE_CLUSTERS)
        entry_bytes -= max(0, filled - 1) * (BODY_SIZE - 1 - largest)
        clusters -= filled
    return None


def copied_bytes(entry_bytes: int, largest: int, clusters: int) -> int:
    """Bytes of a journal that takes so many bytes of entries, none larger than `largest`, however they lie.

    :param clusters: of so many they are, in their order; then they never take more, since those of each fit one
    """
    # A cluster is left when the next entry does not fit: less than the largest one is lost in each.
    by_size = -(-entry_bytes // (BODY_SIZE - 1 - largest)) + 1
    return (SLOT_CLUSTERS + min(by_size, clusters)) * CLUSTER_SIZE


def candidates_of(shard: Shard) -> list[Candidate]:
    """The closed journals of a shard, oldest first."""
    found = []
    for extent in shard.volume.superblock.journals(shard.number):
        tally = shard.store.tally(extent)
        if extent.state == CLOSED and tally is not None:
            found.append(Candidate(extent, tally))
    return found


def worth_cleaning(
    shard: Shard, candidates: Sequence[Candidate], *, sparing: bool, begun: bool
) -> Run | None:
    """Journals of a shard to pack next where there is no more space, or None where that gives none.

    :param sparing: only where what it gives is no small part of what must be copied for it
    :param begun: this goes on with what gave less than an erase block so far
    """
    superblock = shard.volume.superblock
    block = superblock.erase_block
    room = pieces(superblock, shard.number)
    found = choose_any(candidates, room, block, worth=WORTH if sparing else 0.0)
    if found is not None:
        return found
    held = sum(each.extent.length for each in candidates)
    least = max(space.first_size(block), int(WORTH * held) if sparing else 0)
    if begun or held - _least_space(candidates, block) >= least:
        return choose_first(candidates, room, block)
    if not sparing and any(_gives_behind_clean(each, block) for each in candidates):
        return choose_first(candidates, room, block)
    return None


def _gives_behind_clean(candidate: Candidate, erase_block: int) -> bool:
    """Whether a journal gives an erase block once all that is older is clean, so that it loses its deletions."""
    return candidate.extent.length - _least_space([candidate], erase_block) >= erase_block


def _least_space(candidates: Sequence[Candidate], erase_block: int) -> int:
    """About the bytes that what counts of some journals would take, in journals as large as the largest of them."""
    entries = sum(each.kept(oldest=True) for each in candidates)
    kept = sum(each.kept_bytes(oldest=True) for each in candidates)
    if entries == 0:
        return 0
    largest = max(each.extent.length for each in candidates)
    clusters = sum(each.clusters for each in candidates)
    copied = copied_bytes(kept, min(ENTRY_SIZE_MAX, 2 * kept // entries), clusters)
    # One journal less than there are: what is said of the first has been counted.
    more = (copied - 1) // largest * (SLOT_CLUSTERS + 1) * CLUSTER_SIZE
    return round_to_erase_blocks(copied + more, erase_block)


def pieces(superblock: Superblock, shard: int) -> list[int]:
    """Bytes that each extent takes of the copies of a shard's journals on a full volume, the most first.

    None more than its largest journal has: as much is kept free.
    """
    most = space.largest_journal(superblock, shard)
    usable = [each for each in superblock.extents if each.kind == KIND_FREE]
    usable += reserves_of(superblock, shard)
    least = (SLOT_CLUSTERS + 2) * CLUSTER_SIZE
    return sorted((min(most, each.length) for each in usable if each.length >= least), reverse=True)
