"""Several hash stores become one stream: the newest of each key, in order."""

from __future__ import annotations

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
    split,
    view_of,
)
from hypothesis import given
from hypothesis import strategies as st

from siltstone.hash_store.merging import merge
from siltstone.hash_store.view import HashStoreView
from siltstone.index.types import KeyTypes

ENTRIES = entries_of(st.integers(0, 60))


def merged(stores: list[list[bytes]], *, drop_deletes: bool = False, chunk_bytes: int = 1 << 20) -> bytes:
    views = [view_of(build(entries)) for entries in reversed(stores)]
    chunks = list(merge(views, drop_deletes=drop_deletes, chunk_bytes=chunk_bytes))
    assert all(0 < len(chunk) <= chunk_bytes for chunk in chunks)
    for chunk in chunks:
        list(split(chunk.tobytes()))
    return b"".join(chunk.tobytes() for chunk in chunks)


@given(
    st.lists(st.lists(ENTRIES, max_size=150), min_size=1, max_size=6), st.booleans(), st.integers(254, 900)
)
def test_it_is_what_a_dict_says(stores, drop_deletes, chunk_bytes):
    newest = {key_of(one): one for entries in stores for one in entries}
    found = merged(stores, drop_deletes=drop_deletes, chunk_bytes=chunk_bytes)
    left = {key: one for key, one in newest.items() if not (drop_deletes and one[1] == 0x04)}
    assert {key_of(one): one for one in split(found)} == left
    assert found == in_order(left.values())


def test_many_pages_and_a_store_of_the_result():
    first, second, third = hash_infos(4000, 1), hash_infos(3000, 2), hash_infos(5000, 3)
    changed = [one[:34] + bytes(16) for one in first[::5]]
    gone = [deletion(one[1], one[2:34]) for one in second[::7]]
    stores = [[*first, *second], [*changed, *third], gone]
    found = merged(stores, drop_deletes=True)
    view = view_of(build_packed(found)[0])
    model = {key_of(one): one for entries in stores for one in entries}
    assert view.records == len(first) + len(second) + len(third) - len(gone)
    for (kind, key), one in model.items():
        assert view.get(kind, key) == (None if one[1] == 0x04 else one)


def test_chunks_are_the_callers_own():
    views = [view_of(build(hash_infos(500)))]
    chunks = merge(views, chunk_bytes=300)
    first = next(chunks)
    kept = first.tobytes()
    list(chunks)
    assert first.tobytes() == kept


def test_what_cannot_be_merged_is_refused():
    extent = build(hash_infos(5))
    view = view_of(extent)
    with pytest.raises(ValueError, match="no hash stores"):
        list(merge([]))
    with pytest.raises(ValueError, match="254"):
        list(merge([view], chunk_bytes=253))
    for types, secret in ((KeyTypes({}), SECRET), (TYPES, bytes(16))):
        with pytest.raises(ValueError, match="another secret"):
            list(merge([view, HashStoreView(extent, KEY, types, secret)]))


def test_stores_without_entries():
    empty = view_of(build([]))
    assert list(merge([empty, empty])) == []
    view = view_of(build(hash_infos(5)))
    assert b"".join(chunk.tobytes() for chunk in merge([empty, view, empty])) == in_order(hash_infos(5))
