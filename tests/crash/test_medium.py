"""The fake medium and the states that a crash leaves on it, since all the batteries stand on them."""

from __future__ import annotations

import random

import pytest
from crash_states import CrashPoint, crash_points
from medium import FLUSH, HEAD, JUNK, Crash, Image, Medium, Write

from siltstone.errors import DiskFullError, MediumError
from siltstone.format.constants import EXTENTS_OFFSET, SECTOR_SIZE, SLOT_SIZE

OLD = b"o" * 4096
NEW = b"n" * 4096
LATER = b"l" * 4096


def medium() -> Medium:
    made = Medium(Image.blank(64 * 1024))
    made.write(EXTENTS_OFFSET, OLD)
    made.flush()
    return made


def pieces(image: Image) -> list[bytes]:
    return [bytes(image.durable[HEAD + at : HEAD + at + SECTOR_SIZE]) for at in range(0, 4096, SECTOR_SIZE)]


def last_point(made: Medium) -> CrashPoint:
    *_earlier, point = crash_points(made.start, made.log)
    return point


def test_reads_see_writes_and_flushes_make_them_durable():
    made = medium()
    made.write(EXTENTS_OFFSET, NEW)
    assert made.read(EXTENTS_OFFSET, 4096) == NEW
    view = made.map(EXTENTS_OFFSET, 8192)
    assert view is not None
    made.write(EXTENTS_OFFSET + 4096, OLD)
    assert bytes(view) == NEW + OLD
    assert bytes(made.at_rest.durable[HEAD : HEAD + 8192]) == OLD + bytes(4096)
    assert len(made.at_rest.pending) == 2
    made.flush()
    assert bytes(made.at_rest.durable[HEAD : HEAD + 8192]) == NEW + OLD
    assert made.log == [Write(HEAD, OLD), FLUSH, Write(HEAD, NEW), Write(HEAD + 4096, OLD), FLUSH]


def test_both_superblock_slots_are_there():
    made = medium()
    made.write(0, NEW)
    made.write(SLOT_SIZE, LATER)
    assert made.read(0, 4096) + made.read(SLOT_SIZE, 4096) == NEW + LATER
    made.write(0, bytes(EXTENTS_OFFSET))
    assert made.read(0, 4096) + made.read(SLOT_SIZE, 4096) == bytes(8192)


def test_every_state_of_a_few_sectors_is_met_once():
    made = medium()
    made.write(EXTENTS_OFFSET, NEW[:1536])
    point = last_point(made)
    states = [
        tuple(pieces(point.after_power_cut(overlay))[:3])
        for overlay in point.sector_states(1000, random.Random(1))
    ]
    assert len(states) == len(set(states)) == 27
    old, new = OLD[:512], NEW[:512]
    assert {state for state in states if not set(state) & set(JUNK)} == {
        (a, b, c) for a in (old, new) for b in (old, new) for c in (old, new)
    }


def test_a_block_written_twice_may_hold_either_or_neither():
    made = medium()
    made.write(EXTENTS_OFFSET, NEW)
    made.write(EXTENTS_OFFSET, LATER)
    point = last_point(made)
    states = [
        b"".join(pieces(point.after_power_cut(overlay)))
        for overlay in point.block_states(10, random.Random(1))
    ]
    assert len(states) == 4
    assert {OLD, NEW, LATER} < set(states)


def test_a_choice_of_many_states_meets_whole_and_torn_writes():
    made = medium()
    for at in range(0, 40960, 4096):
        made.write(EXTENTS_OFFSET + at, NEW)
    point = last_point(made)
    for states in (point.sector_states(400, random.Random(1)), point.block_states(400, random.Random(1))):
        images = [point.after_power_cut(overlay).durable for overlay in states]
        assert len(images) == 400
        firsts = [bytes(image[HEAD : HEAD + 4096]) for image in images]
        assert OLD in firsts
        assert NEW in firsts
        assert set(firsts) - {OLD, NEW}


def test_what_was_flushed_stays_whatever_the_cut():
    made = medium()
    made.write(EXTENTS_OFFSET + 8192, NEW)
    for overlay in last_point(made).sector_states(300, random.Random(1)):
        image = last_point(made).after_power_cut(overlay)
        assert b"".join(pieces(image)) == OLD


def test_a_death_in_the_middle_of_a_write_leaves_its_start():
    made = medium()
    made.write(EXTENTS_OFFSET, NEW)
    left = Medium(last_point(made).after_death(1024))
    assert left.read(EXTENTS_OFFSET, 4096) == NEW[:1024] + OLD[1024:]
    assert left.at_rest.durable == made.at_rest.durable


def test_after_a_crash_nothing_moves():
    made = medium()
    made.failures[made.operations] = Crash()
    with pytest.raises(Crash):
        made.write(EXTENTS_OFFSET, NEW)
    for use in (made.flush, lambda: made.write(EXTENTS_OFFSET, NEW), lambda: made.read(EXTENTS_OFFSET, 512)):
        with pytest.raises(Crash):
            use()
    assert not made.pending


def test_a_flush_that_failed_fails_again():
    made = medium()
    made.failures[made.operations] = MediumError("EIO", url=made.url, operation="flush")
    for _number in range(2):
        with pytest.raises(MediumError):
            made.flush()
    assert made.read(EXTENTS_OFFSET, 4096) == OLD


def test_it_does_not_grow():
    made = medium()
    made.grow(made.size)
    with pytest.raises(DiskFullError):
        made.grow(made.size + 1)
