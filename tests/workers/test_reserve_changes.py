"""What is kept of a volume for the recovery, the deletions and the cleaning of each shard."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_shard_changes import BASE, BLOCK, END_OF_ALL, FIRST, RESERVE, VOLUME, changed, differences

from siltstone.errors import StateError
from siltstone.format.superblock import (
    EMPTY,
    FREE,
    KIND_FREE,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    KIND_RESERVE,
    Extent,
)
from siltstone.shard.changes import Give, TakeEmpty, TakeFresh, TakeHashStore, TakeNext
from siltstone.shard.space import with_reserve
from siltstone.volume import allocator


def test_the_next_journal_is_taken_with_the_reserve_that_it_needs() -> None:
    found = changed(TakeNext(((0, BLOCK),)))
    assert differences(found).keys() == {5, 20}
    assert found.extent(5) == Extent(5, BASE + 4 * FIRST, BLOCK, KIND_JOURNAL, 0, 0, EMPTY, generation=9)
    # A shard that has none: as much as its largest journal, and as much again for deletions, in pieces.
    found = changed(TakeNext(((1, BLOCK),)))
    assert allocator.reserved_bytes(found, 1) == 2 * FIRST
    assert [each.length for each in allocator.reserves_of(found, 1)] == [FIRST + BLOCK, BLOCK]
    assert allocator.reserved_bytes(found, 0) == 2 * FIRST
    # A journal larger than all others must fit what is kept once it is full.
    large = replace(VOLUME.extent(2), offset=END_OF_ALL, length=8 * FIRST)
    assert (
        allocator.reserved_bytes(changed(TakeNext(((0, BLOCK),)), VOLUME.with_extents(large)), 0)
        == 12 * FIRST
    )


def test_pieces_are_joined_where_there_is_a_larger_one() -> None:
    """Deletions and copies need pieces; how many bytes there are says little."""
    pieces = [
        replace(RESERVE, id=30 + number, offset=END_OF_ALL + 2 * number * BLOCK, length=BLOCK)
        for number in range(2 * FIRST // BLOCK)
    ]
    taken = [
        Extent(60 + number, piece.offset + BLOCK, BLOCK, KIND_HASH_STORE, 1, 20 + number, EMPTY, generation=3)
        for number, piece in enumerate(pieces)
    ]
    scattered = replace(VOLUME, next_extent=100).with_extents(
        replace(RESERVE, kind=KIND_FREE, state=FREE), *pieces, *taken
    )
    assert allocator.reserved_bytes(scattered, 0) == 2 * FIRST
    # RESERVE's place is free now, and as large as all of them.
    assert [each.length for each in allocator.reserves_of(with_reserve(scattered, 0), 0)] == [2 * FIRST]
    # Where nothing larger is free they stay as they are.
    free = [each for each in scattered.extents if each.kind == KIND_FREE]
    full = scattered.with_extents(
        *(
            replace(each, kind=KIND_HASH_STORE, state=EMPTY, order=70 + number, generation=3)
            for number, each in enumerate(free)
        )
    )
    assert with_reserve(full, 0) is full


def test_a_recovery_leaves_what_cleaning_needs() -> None:
    superblock = VOLUME.with_extents(replace(RESERVE, length=FIRST + BLOCK))
    found = changed(TakeFresh((0,), kept=True), superblock)
    assert found.extent(4) == Extent(4, RESERVE.offset, BLOCK, KIND_JOURNAL, 0, 0, EMPTY, generation=9)
    assert allocator.reserved_bytes(found, 0) == FIRST
    # Then it needs new space.
    assert changed(TakeFresh((0,), kept=True), found).extent(5).kind == KIND_JOURNAL


def test_what_cleans_may_take_of_the_reserve() -> None:
    found = changed(TakeEmpty(0, FIRST + 1, kept=True))
    assert differences(found) == {
        4: Extent(4, RESERVE.offset, FIRST + BLOCK, KIND_JOURNAL, 0, 0, EMPTY, generation=9),
        20: Extent(20, RESERVE.offset + FIRST + BLOCK, BLOCK, KIND_RESERVE, 0),
    }
    found = changed(TakeHashStore(0, 2 * FIRST, kept=True))
    assert differences(found) == {4: replace(RESERVE, kind=KIND_HASH_STORE, state=EMPTY, generation=9)}
    for refused in (TakeEmpty(0, 2 * FIRST + 1, True), TakeEmpty(1, 1, True), TakeHashStore(1, 1, True)):
        with pytest.raises(StateError, match="are kept for it"):
            refused(VOLUME)


def test_more_is_not_kept_than_is_needed_in_pieces_either() -> None:
    other = replace(RESERVE, id=9, offset=END_OF_ALL)
    found = changed(Give(0, 3), VOLUME.with_extents(other))
    assert allocator.reserved_bytes(found, 0) == 2 * FIRST
    assert allocator.free_bytes(found) == allocator.free_bytes(VOLUME) + 3 * FIRST


def test_more_is_not_kept_than_is_needed() -> None:
    superblock = VOLUME.with_extents(replace(RESERVE, length=6 * FIRST))
    found = changed(Give(0, 3), superblock)
    assert allocator.reserved_bytes(found, 0) == 2 * FIRST
    assert found.extent(20) == Extent(20, END_OF_ALL, 4 * FIRST, state=FREE)
