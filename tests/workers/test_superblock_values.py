"""Superblocks on their way to a worker: what is different comes out as it was, whatever is no difference is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from superblocks import SAMPLE, superblocks

from siltstone.format.superblock import RecordedType, Superblock
from siltstone_workers.errors import ProtocolError
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.superblock_values import difference_from_wire, difference_to_wire


def sent(before: Superblock | None, after: Superblock) -> list[Any]:
    """The difference as it comes out of a pipe."""
    value: list[Any] = unpack_value(memoryview(pack_value(difference_to_wire(before, after))))
    return value


@given(superblocks(), st.data())
def test_what_is_different_makes_the_one_of_the_other(after: Superblock, data: st.DataObject) -> None:
    # Before the first there was none.
    assume(after.sequence > 1)
    # Of what is there, some had been there, some had been otherwise; and something had been that is not any more.
    had = [
        each if data.draw(st.booleans()) else replace(each, generation=0, end=None)
        for each in after.extents
        if data.draw(st.booleans())
    ]
    if after.extents and data.draw(st.booleans()):
        had.append(replace(after.extents[-1], id=2**32, offset=after.extents[-1].stop))
    before = replace(
        after,
        sequence=after.sequence - 1,
        epoch=0,
        clean=not after.clean,
        next_extent=1,
        extents=tuple(had),
        entry_types={9: RecordedType("other", 1, "elsewhere")},
    )
    assert difference_from_wire(before, sent(before, after)) == after
    # Whoever has something else gets all of it.
    assert difference_from_wire(before, sent(None, after)) == after


def test_only_what_changed_is_sent() -> None:
    first, *others = SAMPLE.extents
    after = replace(SAMPLE, sequence=SAMPLE.sequence + 1).with_extents(replace(first, generation=1))
    *_fields, gone, changed = sent(SAMPLE, after)
    assert others
    assert (gone, [each[0] for each in changed]) == ([], [first.id])


def test_a_difference_to_another_one_is_refused() -> None:
    value = sent(SAMPLE, replace(SAMPLE, sequence=SAMPLE.sequence + 1))
    with pytest.raises(ProtocolError, match="what changed since"):
        difference_from_wire(replace(SAMPLE, sequence=SAMPLE.sequence + 5), value)


VALUE = sent(None, SAMPLE)
_SCALARS = st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.text(max_size=3)


@given(st.data())
def test_anything_else_is_refused_as_that(data: st.DataObject) -> None:
    """One place of it is something else, and it is taken for what it says or refused; nothing else comes of it."""
    value = unpack_value(memoryview(pack_value(VALUE)))
    inside = value
    while True:
        at = data.draw(st.integers(0, len(inside) - 1))
        if isinstance(inside[at], list) and inside[at] and data.draw(st.booleans()):
            inside = inside[at]
            continue
        before = inside[at]
        inside[at] = data.draw(_SCALARS | st.lists(_SCALARS, max_size=3))
        break
    try:
        found = difference_from_wire(SAMPLE, value)
    except ProtocolError as error:
        assert error.fields["rule"] == "superblock"
    else:
        assert isinstance(found, Superblock)
        assert type(inside[at]) is type(before) or None in (inside[at], before)


@pytest.mark.parametrize("value", [None, 5, b"", [], [0] * 8, "superblock", [[]] * 8])
def test_what_is_no_difference_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match="no superblock"):
        difference_from_wire(SAMPLE, value)
