"""Which journals are cleaned where space is short: whatever they hold, nothing that is deleted may come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.format.constants import BODY_SIZE, CLUSTER_SIZE, SLOT_CLUSTERS
from siltstone.format.seal import End
from siltstone.format.superblock import CLOSED, KIND_JOURNAL, KIND_RESERVE, Extent, Superblock
from siltstone.log_store.log_store import JournalTally
from siltstone.shard import space
from siltstone.shard.choosing import Candidate, choose, choose_any, choose_first, copied_bytes

BLOCK = 64 * 1024
#: entries of 50 bytes that a cluster takes
A_CLUSTER = BODY_SIZE // 50


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Closed journals, oldest first: full or not, alive, dead, or with deletions."""
    found = []
    for number in range(draw(st.integers(0, 8))):
        length = BLOCK * draw(st.integers(1, 8))
        clusters = draw(st.integers(1, length // CLUSTER_SIZE - SLOT_CLUSTERS))
        entries = draw(st.integers(1, clusters * A_CLUSTER))
        deletions = draw(st.sampled_from([0, entries // 3, entries]))
        keyless = draw(st.sampled_from([0, (entries - deletions) // 4]))
        named = draw(
            st.sampled_from([0, (entries - deletions - keyless) // 2, entries - deletions - keyless])
        )
        end = End(clusters - 1, 100, None, 1)
        extent = Extent(number, number << 20, length, KIND_JOURNAL, 0, number, CLOSED, generation=1, end=end)
        found.append(Candidate(extent, JournalTally(entries, deletions, keyless, named)))
    return found


def journal(number: int, tally: JournalTally) -> Candidate:
    """A closed journal of one erase block."""
    end = End(1 if tally.entries else 0, 0, None, 1)
    extent = Extent(number, number << 20, BLOCK, KIND_JOURNAL, 0, number, CLOSED, generation=1, end=end)
    return Candidate(extent, tally)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_journals_that_never_took_an_entry_are_packed_wherever_they_lie(at):
    journals = [journal(number, JournalTally(100, 0, 0, 100)) for number in range(2)]
    assert choose(journals) is None
    empty = journal(7, JournalTally(0, 0, 0, 0))
    journals.insert(at, empty)
    run = choose(journals)
    assert run is not None
    assert run.sources == (empty.extent,)


ROOM = st.lists(st.integers(1, 12).map(lambda blocks: blocks * BLOCK), max_size=3).map(
    lambda lengths: sorted(lengths, reverse=True)
)


@given(candidates(), ROOM, st.sampled_from([0.0, 1 / 16, 1.0]))
def test_deletions_are_given_up_only_where_nothing_older_is_dead(journals, room, worth):
    extents = [each.extent for each in journals]
    for run in (choose_any(journals, room, BLOCK, worth=worth), choose_first(journals, room, BLOCK)):
        if run is None:
            continue
        first = extents.index(run.sources[0])
        assert list(run.sources) == extents[first : first + len(run.sources)], "neighbours, oldest first"
        if run.oldest:
            assert all(each.dead == 0 for each in journals[:first])


@given(candidates(), ROOM)
def test_what_is_chosen_gives_more_than_its_copies_take(journals, room):
    run = choose_any(journals, room, BLOCK)
    if run is not None:
        chosen = [each for each in journals if each.extent in run.sources]
        kept = sum(each.kept_bytes(oldest=run.oldest) for each in chosen)
        held = sum(each.extent.length for each in chosen)
        assert kept <= sum(room)
        assert held - kept >= BLOCK


@given(candidates())
def test_where_something_is_dead_and_there_is_room_a_pass_begins(journals):
    run = choose_first(journals, [1 << 30], BLOCK)
    assert (run is None) == all(each.dead == 0 for each in journals)


SIZES = st.integers(3, 254)


@given(st.lists(st.lists(SIZES, max_size=300), min_size=1, max_size=12))
def test_copies_take_no_more_than_is_said_of_them(clusters):
    """Entries of some clusters, of which some may be gone, one behind the other."""
    # Those of each fit one cluster.
    held = []
    for entries in clusters:
        while sum(entries) > BODY_SIZE:
            entries.pop()
        held += entries
    used, taken = BODY_SIZE, 0
    for size in held:
        if used + size > BODY_SIZE:
            used, taken = 0, taken + 1
        used += size
    said = copied_bytes(sum(held), max(held, default=0), len(clusters))
    assert taken <= said // CLUSTER_SIZE - SLOT_CLUSTERS
    assert said <= (SLOT_CLUSTERS + len(clusters)) * CLUSTER_SIZE


@given(st.lists(st.integers(1, 8), max_size=6), st.integers(1, 16))
def test_what_deletions_may_take_leaves_room_for_a_copy_of_the_largest_journal(kept, largest):
    lengths = [*kept, largest, 1]
    extents = [
        Extent(number, 0, length * BLOCK, KIND_RESERVE, 0)
        if number < len(kept)
        else Extent(number, 0, length * BLOCK, KIND_JOURNAL, 0, number, CLOSED, end=End(0, 0, None, 1))
        for number, length in enumerate(lengths)
    ]
    superblock = Superblock(b"u" * 16, BLOCK, 0, 1, extents=tuple(extents))
    room = space.room_for_deletions(superblock, 0)
    if room == 0:
        return
    assert room % BLOCK == 0
    left = sorted(length * BLOCK for length in kept)
    at = next(number for number, length in enumerate(left) if length >= room)
    left[at] -= room
    # Each piece but the last loses a cluster to what is copied at once, and one that only a tail fills.
    clusters = largest * BLOCK // CLUSTER_SIZE - SLOT_CLUSTERS - 1
    for piece in sorted(left, reverse=True):
        if piece >= largest * BLOCK:
            clusters = 0
        clusters -= max(0, piece // CLUSTER_SIZE - SLOT_CLUSTERS - 2)
    assert clusters <= 0
