"""Changes of the superblock that make and merge hash stores, and what of them is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_shard_changes import BASE, BLOCK, END, FIRST, NOT_CLOSED, VOLUME, changed, extent

from siltstone.errors import StateError
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    EMPTY,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    KIND_RESERVE,
    Extent,
    Part,
)
from siltstone.shard.changes import Filled, Incarnate, Merge, Narrowed, Packed

PART = Part(0, 100, 10)
REST = Part(1 << 60, 50, 5)

#: the same with two hash stores of shard 0, one filled and one to be filled
STORES = VOLUME.with_extents(
    extent(9, 10, kind=KIND_HASH_STORE, shard=0, state=CLOSED, generation=7, part=PART),
    extent(10, 11, kind=KIND_HASH_STORE, shard=0, state=EMPTY, generation=8),
)
NOT_FILLING = [1, 2, 3, 4, 5, 6, 7, 8, 9, 99, 2**63]
NOT_A_HASH_STORE = [1, 2, 3, 4, 5, 6, 7, 8, 10, 99, 2**63]

REFUSED_WITH_STORES = [
    *((f"incarnate-{number}", Incarnate(0, (number,), (), ())) for number in NOT_CLOSED),
    *(
        (f"incarnate-into-{number}", Incarnate(0, (1,), (), (Filled(number, FIRST, PART),)))
        for number in NOT_FILLING
    ),
    ("incarnate-nothing", Incarnate(0, (), (), ())),
    ("incarnate-into-more-than-it-has", Incarnate(0, (1,), (), (Filled(10, 2 * FIRST, PART),))),
    ("incarnate-into-a-part-of-a-block", Incarnate(0, (1,), (), (Filled(10, 100, PART),))),
    *((f"merge-{number}", Merge(0, 0, (number,), (), None)) for number in NOT_A_HASH_STORE),
    *((f"merge-into-{number}", Merge(0, 0, (9,), (), Filled(number, FIRST, PART))) for number in NOT_FILLING),
    ("merge-nothing", Merge(0, 0, (), (), None)),
    ("merge-twice", Merge(0, 0, (9, 9), (), None)),
]


@pytest.mark.parametrize(
    "change",
    [change for _name, change in REFUSED_WITH_STORES],
    ids=[name for name, _change in REFUSED_WITH_STORES],
)
def test_a_change_of_hash_stores_that_are_not_the_shards_or_not_in_this_state_is_refused(change: Any) -> None:
    with pytest.raises(StateError) as caught:
        change(STORES)
    assert len(str(caught.value)) < 200


def test_a_hash_store_takes_the_place_of_journals_and_keeps_what_it_needs() -> None:
    found = changed(Incarnate(0, (1,), (), (Filled(10, BLOCK, PART),)), STORES)
    assert [(each.id, each.order) for each in found.journals(0)] == [(2, 2)]
    stores = [(each.id, each.order, each.length) for each in found.hash_stores(0)]
    assert stores == [(9, 0, FIRST), (10, 1, BLOCK)]
    # The rest of its extent is kept, since merging the two takes space.
    assert found.extents[-1] == Extent(20, BASE + 11 * FIRST + BLOCK, FIRST - BLOCK, KIND_RESERVE, 0)


def test_a_merged_hash_store_takes_the_place_of_its_sources() -> None:
    assert [
        (each.id, each.order)
        for each in changed(Merge(0, 0, (9,), (), Filled(10, FIRST, PART)), STORES).hash_stores(0)
    ] == [(10, 0)]
    assert changed(Merge(0, 0, (9,), (), None), STORES).hash_stores(0) == []


#: shard 0 has hash stores, closed journals, and what may take the place of some of them
STORED = replace(
    VOLUME,
    extents=(
        *(
            extent(
                number, number, kind=KIND_HASH_STORE, order=number, state=CLOSED, generation=number, part=PART
            )
            for number in (1, 2, 3)
        ),
        *(
            extent(number, number, kind=KIND_JOURNAL, order=number, state=CLOSED, generation=number, end=END)
            for number in (4, 5, 6)
        ),
        extent(7, 7, kind=KIND_JOURNAL, order=7, state=ACTIVE, generation=7),
        extent(8, 8, kind=KIND_JOURNAL, state=EMPTY, generation=8),
        extent(9, 9, kind=KIND_HASH_STORE, state=EMPTY, generation=8),
    ),
)


@pytest.mark.parametrize(
    "change",
    [
        Incarnate(0, (), (), (Filled(9, FIRST, PART),)),
        Incarnate(0, (5,), (), (Filled(9, FIRST, PART),)),
        Incarnate(0, (4, 6), (), (Filled(9, FIRST, PART),)),
        Incarnate(0, (5,), (), (Filled(9, FIRST, PART),), (6,)),
        Incarnate(0, (6,), (), (Filled(9, FIRST, PART),), (4,)),
        Incarnate(0, (4,), (), (Filled(9, FIRST, PART),), (4,)),
        Incarnate(0, (4, 5, 6, 7), (), (Filled(9, FIRST, PART),)),
        Incarnate(0, (4,), (), (Filled(8, FIRST, PART),)),
        Incarnate(0, (4,), (), (Filled(1, FIRST, PART),)),
        Incarnate(1, (4,), (), (Filled(9, FIRST, PART),)),
        Merge(0, 3, (), (), Filled(9, FIRST, PART)),
        Merge(0, 3, (1, 3), (), Filled(9, FIRST, PART)),
        Merge(0, 1, (1, 1), (), Filled(9, FIRST, PART)),
        Merge(0, 1, (1, 4), (), Filled(9, FIRST, PART)),
        Merge(0, 2, (1, 2), (), Filled(8, FIRST, PART)),
        Merge(0, 2, (1, 2), (), Filled(3, FIRST, PART)),
        Merge(0, 1, (1, 9), (), None),
        Merge(0, 3, (1, 2), (), Filled(9, FIRST, PART)),
        Merge(0, 1, (1, 2), (), Filled(9, FIRST, PART)),
        Merge(0, 4, (1, 2, 3), (), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(1, REST),), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(2, REST), Narrowed(2, REST)), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(4, REST),), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(9, REST),), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(99, REST),), Filled(9, FIRST, PART)),
        # What no superblock may name.
        Merge(0, 2, (1,), (Narrowed(2, REST._replace(entries=FIRST + 1)),), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(2, PART),), Filled(9, FIRST, PART)),
        Merge(0, 2, (1,), (Narrowed(2, REST),), Filled(9, FIRST, PART._replace(entries=FIRST + 1))),
        Incarnate(0, (4,), (), (Filled(9, FIRST, PART._replace(entries=FIRST + 1)),)),
        Merge(1, 2, (1, 2), (), Filled(9, FIRST, PART)),
    ],
    ids=str,
)
def test_only_neighbours_become_a_hash_store_and_only_what_is_filled_takes_their_place(change: Any) -> None:
    with pytest.raises(StateError):
        changed(change, STORED)


@pytest.mark.parametrize(
    ("sources", "passed"), [((4,), ()), ((4, 5), ()), ((5,), (4,)), ((5, 6), (4,)), ((6,), (4, 5))]
)
def test_what_is_incarnated_is_the_oldest_but_for_journals_that_were_passed(
    sources: tuple[int, ...], passed: tuple[int, ...]
) -> None:
    found = changed(Incarnate(0, sources, (Packed(8, END),), (Filled(9, FIRST, PART),), passed), STORED)
    assert [each.id for each in found.hash_stores(0)] == [1, 2, 3, 9]
    left = [number for number in (4, 5, 6) if number not in (*sources, *passed)]
    assert [each.id for each in found.journals(0)] == [*passed, 8, *left, 7]


def test_a_slice_becomes_a_part_of_the_newest_and_what_it_was_made_from_begins_behind_it() -> None:
    found = changed(Merge(0, 3, (2,), (Narrowed(1, REST), Narrowed(3, REST)), Filled(9, FIRST, PART)), STORED)
    parts = [(each.id, each.order, each.part) for each in found.hash_stores(0)]
    assert parts == [(1, 1, REST), (9, 3, PART), (3, 3, REST)]
    # The next slice: what is left of all of them, beside the first.
    taken = found.with_extents(extent(10, 20, kind=KIND_HASH_STORE, state=EMPTY, generation=8))
    more = PART._replace(first=REST.first)
    found = changed(Merge(0, 3, (1, 3), (), Filled(10, FIRST, more)), taken)
    assert [(each.id, each.order, each.part) for each in found.hash_stores(0)] == [
        (9, 3, PART),
        (10, 3, more),
    ]
    with pytest.raises(StateError, match="cannot have"):
        changed(Merge(0, 3, (1,), (), Filled(10, FIRST, PART)), taken)
