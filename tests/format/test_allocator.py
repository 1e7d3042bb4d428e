"""Space of a volume taken and given back in any order: no byte belongs to two, none is lost, no id comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siltstone.errors import BatchTooLargeError
from siltstone.format.constants import EXTENTS_OFFSET, JOURNAL_SIZE_MAX
from siltstone.format.superblock import (
    EMPTY,
    FREE,
    KIND_FREE,
    KIND_JOURNAL,
    KIND_RESERVE,
    Extent,
    Superblock,
    first_extent_offset,
)
from siltstone.format.superblock_slot import decode_slot, encode_slot
from siltstone.shard.space import as_empty
from siltstone.volume import allocator

KIB64 = 65536


def volume(erase_block: int) -> Superblock:
    return Superblock(bytes(16), erase_block, 0, 8, sequence=1)


def taken_of(superblock: Superblock) -> dict[int, Extent]:
    return {extent.id: extent for extent in superblock.extents if extent.kind != KIND_FREE}


def assert_whole(superblock: Superblock) -> None:
    """Extents follow one another without gap or overlap, whole erase blocks each, free neighbours joined."""
    position = first_extent_offset(superblock.erase_block)
    previous = None
    for extent in superblock.extents:
        assert extent.offset == position
        assert extent.length > 0
        assert extent.offset % superblock.erase_block == extent.length % superblock.erase_block == 0
        assert not (previous == extent.kind == KIND_FREE), "two free neighbours"
        position, previous = extent.stop, extent.kind
    assert allocator.end_of_extents(superblock) == position
    free = sum(extent.length for extent in superblock.extents if extent.kind == KIND_FREE)
    assert allocator.free_bytes(superblock) == free
    ids = [extent.id for extent in superblock.extents]
    assert len(set(ids)) == len(ids)
    assert all(number < superblock.next_extent for number in ids)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 20 * KIB64)),
        st.tuples(st.just("reserve"), st.integers(1, 20 * KIB64)),
        st.tuples(st.just("give"), st.integers(0, 30)),
    ),
    max_size=60,
)


@settings(max_examples=4 * settings.default.max_examples)
@given(steps=STEPS, erase_block=st.sampled_from([KIB64, 4 * KIB64, 2**20, 2**25]))
def test_space_is_neither_shared_nor_lost(steps, erase_block):
    superblock = volume(erase_block)
    held: dict[int, tuple[int, int]] = {}  # what was handed out: where, how much
    ids = set()
    for what, value in steps:
        before = allocator.free_bytes(superblock), allocator.end_of_extents(superblock)
        if what == "give":
            if held:
                number = sorted(held)[value % len(held)]
                _offset, length = held.pop(number)
                superblock = allocator.give(superblock, number)
                assert allocator.free_bytes(superblock) == before[0] + length
                assert allocator.end_of_extents(superblock) == before[1]
        else:
            known = {extent.id for extent in superblock.extents}
            superblock, extent = allocator.take(superblock, value)
            new_ids = {extent.id for extent in superblock.extents} - known
            assert not new_ids & ids, "an id came twice"
            ids |= new_ids | known
            size = allocator.round_to_erase_blocks(value, erase_block)
            assert extent.length == size >= value
            assert size - value < erase_block
            if what == "reserve":
                superblock = allocator.reserve(superblock, extent.id, shard=value % 8)
            else:
                superblock, extent = as_empty(superblock, extent, value % 8)
            held[extent.id] = extent.offset, extent.length
            # Free space is used before the volume grows.
            grown = allocator.end_of_extents(superblock) - before[1]
            assert (allocator.free_bytes(superblock) - before[0]) - grown == -size
            assert grown == 0 or grown == size
        assert_whole(superblock)
        assert {number: (one.offset, one.length) for number, one in taken_of(superblock).items()} == held
    slot = decode_slot(encode_slot(superblock))
    assert slot is not None
    assert slot.superblock == superblock


def test_the_smallest_free_extent_that_fits_is_taken():
    superblock = volume(KIB64)
    for blocks in (4, 1, 2, 1, 3, 1):
        superblock, extent = allocator.take(superblock, blocks * KIB64)
        superblock, extent = as_empty(superblock, extent, 0)
    ids = [extent.id for extent in superblock.extents]
    for number in ids[::2]:
        superblock = allocator.give(superblock, number)
    _changed, found = allocator.take(superblock, 2 * KIB64)
    assert (found.id, found.length) == (ids[2], 2 * KIB64)
    _changed, found = allocator.take(superblock, 3 * KIB64)
    assert (found.id, found.length) == (ids[4], 3 * KIB64)
    changed, found = allocator.take(superblock, 5 * KIB64)
    assert found.offset == allocator.end_of_extents(superblock)
    assert found.id == superblock.next_extent
    assert changed.next_extent == superblock.next_extent + 1


def test_what_is_given_back_forgets_what_it_was():
    superblock, extent = allocator.take(volume(KIB64), KIB64)
    superblock, extent = as_empty(superblock, extent, 3)
    assert (extent.kind, extent.state, extent.shard) == (KIND_JOURNAL, EMPTY, 3)
    assert extent.generation == superblock.sequence
    freed = allocator.give(superblock, extent.id).extent(extent.id)
    assert freed == Extent(extent.id, extent.offset, extent.length)
    assert (freed.kind, freed.state) == (KIND_FREE, FREE)


def test_what_is_kept_for_recovery_is_taken_by_nobody_else():
    superblock, extent = allocator.take(volume(KIB64), 4 * KIB64)
    superblock = allocator.reserve(superblock.with_extents(extent), extent.id, 5)
    assert allocator.free_bytes(superblock) == 0
    changed, other = allocator.take(superblock, KIB64)
    assert other.id != extent.id
    assert other.offset >= extent.stop
    (kept,) = allocator.reserves_of(changed, 5)
    assert (kept.id, kept.kind, kept.length) == (extent.id, KIND_RESERVE, 4 * KIB64)
    assert allocator.reserves_of(changed, 4) == []
    assert (allocator.reserved_bytes(changed, 5), allocator.reserved_bytes(changed, 4)) == (4 * KIB64, 0)


@pytest.mark.parametrize(
    ("size", "rounded"),
    [(0, 1), (1, 1), (KIB64 - 1, 1), (KIB64, 1), (KIB64 + 1, 2), (2 * KIB64, 2), (10 * KIB64 - 1, 10)],
)
def test_sizes_are_rounded_to_whole_erase_blocks(size, rounded):
    # The RFC's code adds a block even where the size is whole already.
    assert allocator.round_to_erase_blocks(size, KIB64) == rounded * KIB64


def test_an_extent_larger_than_a_journal_is_refused():
    superblock = volume(KIB64)
    changed, extent = allocator.take(superblock, JOURNAL_SIZE_MAX)
    assert extent.length == JOURNAL_SIZE_MAX
    assert len(changed.extents) == 1
    with pytest.raises(BatchTooLargeError) as caught:
        allocator.take(superblock, JOURNAL_SIZE_MAX + 1)
    assert caught.value.limit == JOURNAL_SIZE_MAX
    assert caught.value.size > JOURNAL_SIZE_MAX


@pytest.mark.parametrize("erase_block", [2**power for power in range(16, 26)])
def test_extents_start_behind_both_slots_on_an_erase_block(erase_block):
    start = first_extent_offset(erase_block)
    assert start >= EXTENTS_OFFSET
    assert start % erase_block == 0
    assert start - EXTENTS_OFFSET < erase_block
