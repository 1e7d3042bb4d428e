"""Changes of the superblock that a worker asks for: what is not its own is refused, the rest comes out as it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import BatchTooLargeError, StateError
from siltstone.format.constants import JOURNAL_SIZE_MAX
from siltstone.format.seal import End
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    EMPTY,
    FREE,
    KIND_CHECKPOINT,
    KIND_FREE,
    KIND_JOURNAL,
    KIND_RESERVE,
    Extent,
    Superblock,
)
from siltstone.format.superblock_slot import decode_slot, encode_slot
from siltstone.shard.changes import (
    CleanClose,
    Give,
    JournalEnd,
    Pack,
    Packed,
    Reserve,
    Roll,
    Rolled,
    Settle,
    Settled,
    TakeEmpty,
    TakeFresh,
    TakeHashStore,
    TakeNext,
)
from siltstone.shard.checkpoint_changes import (
    CHECKPOINT_SIZE_MAX,
    GiveCheckpoints,
    PublishCheckpoints,
    TakeCheckpoints,
)
from siltstone.shard.space import taken_by
from siltstone.volume import allocator
from siltstone_workers.change_values import change_from_wire, change_to_wire
from siltstone_workers.frames import pack_value, unpack_value

BLOCK = 65536
FIRST = 2 * BLOCK
BASE = 1 << 20
END = End(1, 100, None, 5)


def extent(number: int, place: int, **what: Any) -> Extent:
    return Extent(number, BASE + place * FIRST, FIRST, **what)


#: shard 0 and shard 1 each have a journal in every state, and shard 0 all the reserve that it needs; one extent is free
RESERVE = Extent(4, BASE + 8 * FIRST, 2 * FIRST, KIND_RESERVE, 0)
#: behind all of them
END_OF_ALL = BASE + 10 * FIRST
VOLUME = Superblock(
    uuid=bytes(range(16)),
    erase_block=BLOCK,
    created=1_750_000_000,
    shards=3,
    sequence=9,
    epoch=1,
    clean=False,
    next_extent=20,
    extents=(
        extent(1, 0, kind=KIND_JOURNAL, shard=0, order=1, state=CLOSED, generation=2, end=END),
        extent(2, 1, kind=KIND_JOURNAL, shard=0, order=2, state=ACTIVE, generation=3),
        extent(3, 2, kind=KIND_JOURNAL, shard=0, state=EMPTY, generation=4),
        extent(5, 4),
        extent(6, 5, kind=KIND_JOURNAL, shard=1, order=1, state=CLOSED, generation=5, end=END),
        extent(7, 6, kind=KIND_JOURNAL, shard=1, order=2, state=ACTIVE, generation=6),
        extent(8, 7, kind=KIND_JOURNAL, shard=1, state=EMPTY, generation=7),
        RESERVE,
    ),
)
OWN = {CLOSED: 1, ACTIVE: 2, EMPTY: 3, KIND_RESERVE: 4, KIND_FREE: 5}


def changed(change: Any, superblock: Superblock = VOLUME) -> Superblock:
    """The superblock that a change makes, having crossed a pipe and been written and read."""
    if not isinstance(change, CleanClose):
        change = change_from_wire(unpack_value(memoryview(pack_value(change_to_wire(change)))))
    found = change(superblock)
    again = decode_slot(encode_slot(found), "test:")
    assert again is not None
    assert again.superblock == found
    return found


def differences(found: Superblock) -> dict[int, Extent | None]:
    """The extents that are not as they were, by their ids."""
    before, after = ({each.id: each for each in one.extents} for one in (VOLUME, found))
    return {number: after.get(number) for number in before | after if before.get(number) != after.get(number)}


# ---- what is refused

#: every extent that is not the shard's journal in this state, and one that does not exist
NOT_ACTIVE = [1, 3, 4, 5, 6, 7, 8, 99, 2**63]
NOT_CLOSED = [2, 3, 4, 5, 6, 7, 8, 99, 2**63]
NOT_EMPTY = [1, 2, 4, 5, 6, 7, 8, 99, 2**63]
REFUSED = [
    *((f"give-{number}", Give(0, number)) for number in NOT_EMPTY),
    *((f"publish-{number}", PublishCheckpoints(((0, number),))) for number in (*OWN.values(), 6, 7, 8, 99)),
    *((f"give-up-{number}", GiveCheckpoints(((0, number),))) for number in (*OWN.values(), 6, 7, 8, 99)),
    *((f"roll-from-{number}", Roll((Rolled(0, number, END, None),))) for number in NOT_ACTIVE),
    *((f"roll-to-{number}", Roll((Rolled(0, None, None, number),))) for number in NOT_EMPTY),
    *((f"settle-on-{number}", Settle((Settled(0, number, None, None, False),))) for number in NOT_EMPTY),
    *((f"settle-{number}", Settle((Settled(0, None, number, END, False),))) for number in NOT_ACTIVE),
    *((f"drop-{number}", Settle((Settled(0, None, number, END, True),))) for number in NOT_ACTIVE),
    *((f"close-{number}", CleanClose((JournalEnd(0, number, END, False),))) for number in NOT_ACTIVE),
    ("roll-without-end", Roll((Rolled(0, 2, None, 3),))),
    ("settle-without-end", Settle((Settled(0, 3, 2, None, False),))),
    *((f"pack-{number}", Pack(0, (number,), ())) for number in NOT_CLOSED),
    *((f"pack-into-{number}", Pack(0, (1,), (Packed(number, END),))) for number in NOT_EMPTY),
    ("pack-into-more-than-it-frees", Pack(0, (1,), (Packed(3, END), Packed(3, END)))),
    ("pack-into-something-from-nothing", Pack(0, (), (Packed(3, END),))),
    ("pack-twice", Pack(0, (1, 1), (Packed(3, END),))),
    ("settle-twice", Settle((Settled(0, None, 2, END, False),) * 2)),
    ("settle-one-journal-twice", Settle((Settled(0, 3, None, None, False),) * 2)),
]


@pytest.mark.parametrize(
    "change", [change for _name, change in REFUSED], ids=[name for name, _change in REFUSED]
)
def test_a_change_of_what_is_not_the_shards_or_not_in_this_state_is_refused(change: Any) -> None:
    with pytest.raises(StateError) as caught:
        change(VOLUME)
    assert len(str(caught.value)) < 200


def test_a_shard_cannot_say_that_anothers_journal_is_its_own() -> None:
    for theirs in (6, 7, 8):
        for change in (
            Give(0, theirs),
            Roll((Rolled(0, theirs, END, 3),)),
            Roll((Rolled(0, 2, END, theirs),)),
        ):
            with pytest.raises(StateError):
                change(VOLUME)
    # Nor name the other shard without being seen to.
    assert Give(1, 8).shards(VOLUME) == {1}
    assert Roll((Rolled(1, 7, END, 8),)).shards(VOLUME) == {1}
    assert Roll((Rolled(0, 2, END, 3),), ((1, 1),)).shards(VOLUME) == {0, 1}
    assert (
        TakeEmpty(1, 1, False).shards(VOLUME)
        == TakeNext(((1, 1),)).shards(VOLUME)
        == Reserve(1).shards(VOLUME)
        == {1}
    )
    assert TakeFresh((0, 1), True).shards(VOLUME) == {0, 1}
    both = Settle((Settled(0, 3, None, None, False), Settled(1, 8, None, None, False)))
    assert both.shards(VOLUME) == {0, 1}


@pytest.mark.parametrize("size", [JOURNAL_SIZE_MAX + 1, 2**63, 2**64 - 1])
def test_a_journal_larger_than_any_may_be_is_not_taken(size: int) -> None:
    with pytest.raises(BatchTooLargeError):
        TakeEmpty(0, size, False)(VOLUME)


# ---- what is made


def test_an_empty_journal_is_taken_from_free_space_that_fits() -> None:
    found = changed(TakeEmpty(1, FIRST, False))
    taken = extent(5, 4, kind=KIND_JOURNAL, shard=1, state=EMPTY, generation=9)
    assert differences(found) == {5: taken}
    assert taken_by(found, 1) == taken
    with pytest.raises(StateError):
        taken_by(found, 2)


@pytest.mark.parametrize("size", [0, 1, BLOCK])
def test_what_is_left_of_the_space_stays_free(size: int) -> None:
    found = changed(TakeEmpty(1, size, False))
    offset = BASE + 4 * FIRST
    assert differences(found) == {
        5: Extent(5, offset, BLOCK, KIND_JOURNAL, 1, 0, EMPTY, generation=9),
        20: Extent(20, offset + BLOCK, BLOCK, state=FREE),
    }
    assert found.next_extent == 21


def test_an_empty_journal_is_taken_at_the_end_where_no_space_fits() -> None:
    found = changed(TakeEmpty(1, FIRST + 1, False))
    assert differences(found) == {
        20: Extent(20, END_OF_ALL, FIRST + BLOCK, KIND_JOURNAL, 1, 0, EMPTY, generation=9)
    }


def test_fresh_journals_come_from_what_was_kept_for_them() -> None:
    found = changed(TakeFresh((0,), kept=True))
    assert differences(found) == {
        4: extent(4, 8, kind=KIND_JOURNAL, shard=0, state=EMPTY, generation=9),
        20: extent(20, 9, kind=KIND_RESERVE, shard=0),
    }
    # A shard for which nothing was kept gets new space.
    assert differences(changed(TakeFresh((1,), kept=True))) == {
        5: extent(5, 4, kind=KIND_JOURNAL, shard=1, state=EMPTY, generation=9)
    }


def test_fresh_journals_of_new_space_leave_the_reserve_and_make_one() -> None:
    found = changed(TakeFresh((0, 2), kept=False))
    assert differences(found) == {
        5: extent(5, 4, kind=KIND_JOURNAL, shard=0, state=EMPTY, generation=9),
        20: extent(20, 10, kind=KIND_JOURNAL, shard=2, state=EMPTY, generation=9),
        21: extent(21, 11, kind=KIND_RESERVE, shard=2),
    }


def test_a_journal_that_is_given_back_joins_the_free_space_beside_it() -> None:
    assert differences(changed(Give(0, 3))) == {3: extent(3, 2)}
    found = changed(Give(1, 8), VOLUME.with_extents(extent(7, 6)))
    assert found.extent(8) == Extent(8, BASE + 6 * FIRST, 2 * FIRST, state=FREE)
    # The shard had no reserve.
    assert found.extent(5) == extent(5, 4, kind=KIND_RESERVE, shard=1)


def test_a_reserve_is_kept_once() -> None:
    assert changed(Reserve(0)) == VOLUME
    found = changed(Reserve(2))
    assert differences(found) == {5: extent(5, 4, kind=KIND_RESERVE, shard=2)}
    assert changed(Reserve(2), found) == found


def test_a_roll_closes_the_old_and_lets_the_fresh_take_the_writes() -> None:
    old, fresh = VOLUME.extent(2), VOLUME.extent(3)
    closed, active = replace(old, state=CLOSED, end=END), replace(fresh, state=ACTIVE, order=3)
    assert differences(changed(Roll((Rolled(0, 2, END, 3),)))) == {2: closed, 3: active}
    assert differences(changed(Roll((Rolled(0, 2, END, None),)))) == {2: closed}
    assert changed(Roll((Rolled(0, None, None, None),))) == VOLUME
    gone = changed(Roll((Rolled(0, 2, END, None),)))
    assert changed(Roll((Rolled(0, None, None, 3),)), gone).extent(3) == active


def test_a_roll_takes_journals_as_if_they_were_taken_behind_it() -> None:
    rolled, wanted = (Rolled(0, 2, END, 3),), ((0, 65536), (1, 3 * 65536))
    # One write of the superblock, not two.
    behind = changed(TakeNext(wanted), changed(Roll(rolled)))
    assert differences(changed(Roll(rolled, wanted))) == differences(behind)


@pytest.mark.parametrize("dropped", [False, True])
def test_what_was_recovered_is_closed_or_becomes_the_reserve(dropped: bool) -> None:
    fresh = {
        shard: replace(VOLUME.extent(number), state=ACTIVE, order=3) for shard, number in ((0, 3), (1, 8))
    }
    found = changed(Settle((Settled(0, 3, 2, END, dropped), Settled(1, 8, 7, END, dropped))))
    if not dropped:
        closed = {number: replace(VOLUME.extent(number), state=CLOSED, end=END) for number in (2, 7)}
        kept = {5: extent(5, 4, kind=KIND_RESERVE, shard=1)}
        assert differences(found) == {3: fresh[0], 8: fresh[1], **closed, **kept}
        return
    # Shard 0 has its reserve already. Shard 1 has none: of what is free now as much is kept as it needs.
    assert differences(found) == {
        3: fresh[0],
        8: fresh[1],
        2: extent(2, 1, kind=KIND_RESERVE, shard=1),
        5: extent(5, 4, kind=KIND_RESERVE, shard=1),
        7: extent(7, 6),
    }


@pytest.mark.parametrize("closed", [False, True])
def test_a_clean_close_gives_every_active_journal_its_end(closed: bool) -> None:
    found = changed(CleanClose((JournalEnd(0, 2, END, closed), JournalEnd(1, 7, END, closed))))
    state = CLOSED if closed else ACTIVE
    assert found.clean
    assert differences(found) == {
        number: replace(VOLUME.extent(number), state=state, end=END) for number in (2, 7)
    }


# ---- whatever a worker asks for its own shard

NUMBERS = st.integers(0, 22) | st.just(2**64 - 1)
MAYBE = st.none() | NUMBERS
PAIRS = st.lists(st.tuples(st.just(0), NUMBERS | st.just(FIRST)), max_size=3).map(tuple)
ENDS = st.none() | st.just(END) | st.builds(End, NUMBERS, NUMBERS, MAYBE, NUMBERS)
CHANGES = st.one_of(
    st.builds(TakeEmpty, st.just(0), st.integers(0, 8 * FIRST) | st.just(2**64 - 1), st.booleans()),
    st.builds(TakeHashStore, st.just(0), st.integers(0, 8 * FIRST) | st.just(2**64 - 1), st.booleans()),
    st.builds(
        TakeNext,
        st.lists(st.tuples(st.just(0), st.integers(0, 8 * FIRST) | st.just(2**64 - 1)), max_size=3).map(
            tuple
        ),
    ),
    st.builds(TakeFresh, st.lists(st.just(0), max_size=3).map(tuple), st.booleans()),
    st.builds(TakeCheckpoints, PAIRS),
    st.builds(PublishCheckpoints, PAIRS),
    st.builds(GiveCheckpoints, PAIRS),
    st.builds(Give, st.just(0), NUMBERS),
    st.just(Reserve(0)),
    st.builds(Roll, st.lists(st.builds(Rolled, st.just(0), MAYBE, ENDS, MAYBE), max_size=2).map(tuple)),
    st.builds(
        Settle,
        st.lists(st.builds(Settled, st.just(0), MAYBE, MAYBE, ENDS, st.booleans()), max_size=2).map(tuple),
    ),
)


@given(st.lists(CHANGES, max_size=12))
def test_whatever_a_worker_asks_for_its_shard_the_others_keep_theirs(wanted: list[Any]) -> None:
    superblock = VOLUME
    theirs = [each for each in VOLUME.extents if each.shard == 1]
    for change in wanted:
        try:
            found = change(superblock)
        except (StateError, BatchTooLargeError):
            continue
        assert [each for each in found.extents if each.shard == 1] == theirs
        # No byte has two owners.
        for one, other in zip(found.extents, found.extents[1:], strict=False):
            assert one.stop <= other.offset
        assert (found.uuid, found.shards, found.sequence) == (VOLUME.uuid, VOLUME.shards, VOLUME.sequence)
        superblock = replace(found, sequence=VOLUME.sequence)


def test_a_checkpoint_takes_the_place_of_the_one_before() -> None:
    taken = changed(TakeCheckpoints(((0, FIRST), (1, 3 * JOURNAL_SIZE_MAX))))
    assert differences(taken) == {
        5: extent(5, 4, kind=KIND_CHECKPOINT, shard=0, state=EMPTY, generation=9),
        20: Extent(20, END_OF_ALL, 3 * JOURNAL_SIZE_MAX, KIND_CHECKPOINT, 1, 0, EMPTY, generation=9),
    }
    assert allocator.checkpoint_of(taken, 0) is None
    assert taken_by(taken, 1, checkpoint=True).id == 20
    assert changed(GiveCheckpoints(((0, 5),)), taken).extent(5) == VOLUME.extent(5)
    first = changed(PublishCheckpoints(((0, 5),)), taken)
    assert allocator.checkpoint_of(first, 0) == replace(taken.extent(5), state=CLOSED)
    with pytest.raises(StateError):
        PublishCheckpoints(((0, 20),))(first)
    second = changed(TakeCheckpoints(((0, FIRST),)), first)
    number = taken_by(second, 0, checkpoint=True).id
    found = changed(PublishCheckpoints(((0, number),)), second)
    assert allocator.checkpoint_of(found, 0) == replace(second.extent(number), state=CLOSED)
    assert found.extent(5).kind == KIND_FREE
    assert PublishCheckpoints(((0, 5), (1, 20))).shards(VOLUME) == {0, 1}


def test_a_checkpoint_larger_than_any_may_be_is_not_taken() -> None:
    with pytest.raises(BatchTooLargeError):
        TakeCheckpoints(((0, CHECKPOINT_SIZE_MAX + 1),))(VOLUME)


def test_what_is_packed_takes_the_place_of_its_sources() -> None:
    found = changed(Pack(0, (1,), (Packed(3, END),)))
    assert differences(found) == {
        1: replace(VOLUME.extent(1), kind=KIND_FREE, state=FREE, order=0, generation=0, end=None),
        3: replace(VOLUME.extent(3), state=CLOSED, order=1, end=END),
    }


def test_what_is_packed_from_several_takes_the_newest_place() -> None:
    closed = replace(VOLUME.extent(2), state=CLOSED, end=END)
    found = changed(Pack(0, (1, 2), (Packed(3, END),)), VOLUME.with_extents(closed))
    assert [(each.id, each.order) for each in found.journals(0)] == [(3, 2)]


def test_what_is_packed_into_more_moves_what_comes_behind() -> None:
    more = Extent(9, END_OF_ALL, FIRST, KIND_JOURNAL, 0, state=EMPTY, generation=8)
    packed = (Packed(3, END), Packed(9, END))
    found = changed(Pack(0, (1,), packed), VOLUME.with_extents(more))
    assert [(each.id, each.order) for each in found.journals(0)] == [(3, 1), (9, 2), (2, 3)]
    assert found.journals(1) == VOLUME.journals(1)


def test_only_neighbours_are_packed_together() -> None:
    last = replace(VOLUME.extent(3), state=CLOSED, order=3, generation=4, end=END)
    superblock = VOLUME.with_extents(last, replace(VOLUME.extent(2), state=CLOSED, end=END))
    with pytest.raises(StateError, match="cannot take the place"):
        Pack(0, (1, 3), ())(superblock)
