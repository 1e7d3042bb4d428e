"""Several hash stores become one stream, slice by slice: the newest of each key, in order."""

from __future__ import annotations

import numpy as np
import pytest
from built_stores import (
    KEY,
    SECRET,
    TYPES,
    build,
    build_packed,
    deletion,
    entries_of,
    hash_infos,
    in_order,
    key_of,
    merged_of,
    split,
    view_of,
    whole,
)
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import DamageError
from siltstone.hash_store.merging import Merging
from siltstone.hash_store.sorting import Sorted, sort_entries
from siltstone.hash_store.view import HashStoreView
from siltstone.index.types import KeyTypes

ENTRIES = entries_of(st.integers(0, 60))
STORES = st.lists(st.lists(ENTRIES, max_size=150), min_size=1, max_size=6)
ALL = 1 << 40


def views_of(stores: list[list[bytes]]) -> list[HashStoreView]:
    return [view_of(build(entries)) for entries in reversed(stores)]


def expected(stores: list[list[bytes]], *, drop_deletes: bool) -> bytes:
    newest = {key_of(one): one for entries in stores for one in entries}
    return in_order(one for one in newest.values() if not (drop_deletes and one[1] == 0x04))


@given(STORES, st.booleans(), st.integers(254, 900))
def test_it_is_what_a_dict_says(stores, drop_deletes, chunk_bytes):
    views = views_of(stores)
    merging = Merging([whole(view) if view.records else [] for view in views], drop_deletes=drop_deletes)
    chunks = list(merging.slice(ALL, ALL, chunk_bytes=chunk_bytes))
    assert all(0 < len(chunk) <= chunk_bytes for chunk in chunks)
    for chunk in chunks:
        list(split(chunk.tobytes()))
    assert b"".join(chunk.tobytes() for chunk in chunks) == expected(stores, drop_deletes=drop_deletes)
    assert merging.place is None


@given(STORES, st.booleans(), st.lists(st.tuples(st.integers(1, 40), st.integers(254, 2000)), min_size=1))
def test_slices_are_the_whole_and_each_goes_on_from_what_the_one_before_left(stores, drop_deletes, budgets):
    """Each slice by another merge, which knows of those before only what they said was left."""
    sources = [whole(view) if view.records else [] for view in views_of(stores)]
    found = b""
    for number in range(1000):
        merging = Merging(sources, drop_deletes=drop_deletes)
        entries, entry_bytes = budgets[number % len(budgets)]
        taken = b"".join(chunk.tobytes() for chunk in merging.slice(entries, entry_bytes))
        found += taken
        if merging.place is None:
            break
        # Of one hash there are two keys at most here.
        assert entries <= len(list(split(taken))) + 1 or len(taken) > entry_bytes - 254
        assert len(list(split(taken))) <= entries + 1
        assert len(taken) <= entry_bytes + 254
        sources = [
            [(parts[0][0], merging.place, left.entries, left.tombstones)] if left.part == 0 and parts else []
            for parts, left in zip(sources, merging.left(), strict=True)
        ]
    else:
        raise AssertionError("it does not end")
    assert found == expected(stores, drop_deletes=drop_deletes)


@given(STORES, st.lists(st.tuples(st.integers(1, 30), st.integers(254, 2000)), min_size=1), st.booleans())
def test_stores_in_parts_are_merged_as_whole_ones_are(stores, budgets, drop_deletes):
    parts = []
    for entries in reversed(stores):
        stream = Sorted(TYPES, SECRET, bytes_of(in_order(entries)))
        parts.append([])
        while stream.place is not None:
            first = stream.place if parts[-1] else 0
            taken = b"".join(
                chunk.tobytes() for chunk in stream.slice(*budgets[len(parts[-1]) % len(budgets)])
            )
            view = view_of(build_packed(taken)[0])
            parts[-1].append((view, first, view.records, view.tombstones))
    merging = Merging(parts, drop_deletes=drop_deletes)
    found = b"".join(chunk.tobytes() for chunk in merging.slice(ALL, ALL))
    assert found == expected(stores, drop_deletes=drop_deletes)


@given(STORES, st.lists(ENTRIES, max_size=80), st.booleans(), st.integers(254, 900))
def test_what_is_overruled_is_left_out(stores, overruling, drop_deletes, chunk_bytes):
    """By keys that are there and others, in any number."""
    overruled = sort_entries(TYPES, SECRET, [b"".join(overruling)])
    views = views_of(stores)
    merging = Merging(
        [whole(view) if view.records else [] for view in views],
        drop_deletes=drop_deletes,
        overruled=overruled,
    )
    found = b"".join(chunk.tobytes() for chunk in merging.slice(ALL, ALL, chunk_bytes=chunk_bytes))
    keys = {key_of(one) for one in overruling}
    newest = {key_of(one): one for entries in stores for one in entries if key_of(one) not in keys}
    assert found == in_order(one for one in newest.values() if not (drop_deletes and one[1] == 0x04))
    assert merging.place is None


def bytes_of(packed: bytes):
    return np.frombuffer(packed, np.uint8)


def test_what_counts_of_a_part_is_what_is_said_of_it_elsewhere():
    entries = [*hash_infos(300), deletion(0x02, bytes(32))]
    view = view_of(build(entries))
    for wrong in ((300, 1), (302, 1), (301, 0)):
        merging = Merging([[(view, 0, *wrong)]])
        with pytest.raises(DamageError, match="301 entries with 1 tombstones, not"):
            list(merging.slice(ALL, ALL))


def test_parts_in_the_wrong_order_are_damage():
    one, other = (view_of(build(hash_infos(50, seed))) for seed in (1, 2))
    with pytest.raises(DamageError):
        list(Merging([[*whole(one), (other, 0, 50, 0)]]).slice(ALL, ALL))


def test_many_pages_and_a_store_of_the_result():
    first, second, third = hash_infos(4000, 1), hash_infos(3000, 2), hash_infos(5000, 3)
    changed = [one[:34] + bytes(16) for one in first[::5]]
    gone = [deletion(one[1], one[2:34]) for one in second[::7]]
    stores = [[*first, *second], [*changed, *third], gone]
    found = merged_of(views_of(stores), drop_deletes=True)
    view = view_of(build_packed(found)[0])
    model = {key_of(one): one for entries in stores for one in entries}
    assert view.records == len(first) + len(second) + len(third) - len(gone)
    for (kind, key), one in model.items():
        assert view.get(kind, key) == (None if one[1] == 0x04 else one)


def test_chunks_are_the_callers_own():
    chunks = Merging([whole(view_of(build(hash_infos(500))))]).slice(ALL, ALL, chunk_bytes=300)
    first = next(chunks)
    kept = first.tobytes()
    list(chunks)
    assert first.tobytes() == kept


def test_what_cannot_be_merged_is_refused():
    extent = build(hash_infos(5))
    view = view_of(extent)
    with pytest.raises(ValueError, match="no hash stores"):
        Merging([])
    with pytest.raises(ValueError, match="254"):
        list(Merging([whole(view)]).slice(ALL, ALL, chunk_bytes=253))
    with pytest.raises(ValueError, match="without entries"):
        Merging([whole(view_of(build([])))])
    for types, secret in ((KeyTypes({}), SECRET), (TYPES, bytes(16))):
        with pytest.raises(ValueError, match="another secret"):
            Merging([whole(view), whole(HashStoreView(extent, KEY, types, secret))])


def test_tombstones_that_an_earlier_merge_left_out_are_counted_where_a_part_begins_before_them():
    """The part of a store that begins behind them is where the next merge stands before its other store is."""
    entries = list(split(in_order(hash_infos(100))))
    left_out = deletion(0x02, entries[50][2:34])
    newest, other = view_of(build([left_out, *entries[60:63]])), view_of(build(entries[40:50]))
    first = Merging([whole(view_of(build([entries[60]])))]).place
    merging = Merging([[(newest, first, 3, 0)], whole(other)])
    taken = b"".join(chunk.tobytes() for chunk in merging.slice(3, ALL))
    place, (one, two) = merging.place, merging.left()
    assert place < first
    assert (one, two) == ((0, 4, 1), (0, 7, 0))
    again = Merging([[(newest, place, *one[1:])], [(other, place, *two[1:])]], drop_deletes=True)
    taken += b"".join(chunk.tobytes() for chunk in again.slice(ALL, ALL))
    assert taken == b"".join([*entries[40:50], *entries[60:63]])
