"""Every key that was built answers with its entry, every other one with nothing."""

from __future__ import annotations

import threading

import numpy as np
import page_model
import pytest
from built_stores import (
    COLLISIONS,
    HASH,
    KEYLESS,
    KEYS,
    ONE,
    OTHER,
    SECRET,
    SHORT,
    VARYING,
    build,
    build_packed,
    deletion,
    hash_infos,
    in_order,
    key_of,
    merged_of,
    put,
    split,
    view_of,
)
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.hash_store.view import DELETED, FOUND, NOT_FOUND, HashStoreView


def few_keys(kind: int) -> st.SearchStrategy[bytes]:
    # Few enough that puts, deletions and lookups meet.
    return st.integers(0, 40).map(lambda number: number.to_bytes(KEYS[kind][1], "little"))


KINDS = st.sampled_from([HASH, SHORT, VARYING, ONE, OTHER])
ENTRIES = KINDS.flatmap(
    lambda kind: st.one_of(
        st.builds(put, st.just(kind), few_keys(kind), st.binary(max_size=90)),
        st.builds(deletion, st.just(kind), few_keys(kind)),
    )
)


@given(st.lists(ENTRIES, max_size=300))
def test_a_store_answers_like_a_dict(entries):
    model = {key_of(one): one for one in entries}
    view = view_of(build(entries))
    assert (view.records, view.tombstones) == (len(model), sum(one[1] == 0x04 for one in model.values()))
    for kind, (_offset, size) in KEYS.items():
        keys = [number.to_bytes(size, "little") for number in range(45)]
        for key in keys:
            assert view.get(kind, key) == model.get((kind, key))
        states, rows = view.find_many(kind, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, size))
        for key, state, row in zip(keys, states, rows, strict=True):
            expected = model.get((kind, key))
            if expected is None:
                assert (state, row.any()) == (NOT_FOUND, False)
            else:
                assert state == (DELETED if expected[1] == 0x04 else FOUND)
                assert row.tobytes() == expected.ljust(254, b"\0")


def test_many_pages():
    entries = hash_infos(50_000)
    view = view_of(build(entries))
    keys = np.array([list(one[2:34]) for one in entries], np.uint8)
    states, rows = view.find_many(HASH, keys, 50)
    assert (states == FOUND).all()
    assert rows.tobytes() == b"".join(entries)
    absent = np.random.default_rng(2).integers(0, 256, (200_000, 32), np.uint8)
    assert not view.find_many(HASH, absent)[0].any()


def test_the_keys_of_one_shard_of_many():
    # Their hashes share their upper bits, so that guessing a page starts from a narrow range.
    entries = [one for one in hash_infos(40_000) if page_model.siphash13(SECRET, HASH, one[2:34]) >> 58 == 13]
    assert len(entries) > 500
    view = view_of(build(entries))
    assert all(view.get(HASH, one[2:34]) == one for one in entries)
    keys = np.random.default_rng(2).integers(0, 256, (50_000, 32), np.uint8)
    assert not view.find_many(HASH, keys)[0].any()


def colliding_store(pair: tuple[tuple[int, bytes], ...], before: int) -> tuple[HashStoreView, bytes]:
    """A store with `before` entries of 12 bytes, then a pair with one hash, then more."""
    hashed = page_model.siphash13(SECRET, *pair[0])
    assert page_model.siphash13(SECRET, *pair[1]) == hashed
    lower, higher = [], []
    number = 0
    while len(lower) < before or len(higher) < 500:
        key = number.to_bytes(8, "big")
        one = put(ONE, key, b"..")
        (lower if page_model.siphash13(SECRET, ONE, key) < hashed else higher).append(one)
        number += 1
    packed = in_order([*lower[:before], *higher[:500], *(put(kind, key, b"..") for kind, key in pair)])
    assert [key_of(one) for one in split(packed)][before : before + 2] == sorted(pair)
    return view_of(build_packed(packed)[0]), packed


@pytest.mark.parametrize("pair", COLLISIONS)
@pytest.mark.parametrize("before", [0, 310, 311, 312, 313])
def test_equal_hashes_in_one_page_and_in_two(pair, before):
    # 312 entries of 12 bytes and a tag fill a page: with 311 before it the pair lies in two.
    view, packed = colliding_store(pair, before)
    for one in split(packed):
        kind, key = key_of(one)
        assert view.get(kind, key) == one
    first = next(iter(view.pages()))
    if before == 311:
        assert key_of(list(split(first))[-1]) == min(pair)
    assert view.get(OTHER, bytes(8)) is None
    view.verify()
    assert merged_of([view, view]) == packed


def test_of_two_keys_with_one_hash_the_absent_one_is_absent():
    for (kind, key), (other_kind, other) in COLLISIONS:
        view = view_of(build([*hash_infos(200), put(kind, key)]))
        assert view.get(kind, key) == put(kind, key)
        assert view.get(other_kind, other) is None


def test_a_type_with_the_bytes_of_another_ones_key_is_not_found():
    view = view_of(build([put(ONE, b"12345678")]))
    assert view.get(OTHER, b"12345678") is None
    assert view.get(ONE, b"12345678") is not None


def test_keys_that_no_entry_can_have_are_refused():
    view = view_of(build(hash_infos(3)))
    for kind, key in ((KEYLESS, b"12345678"), (HASH, bytes(31)), (256, bytes(32)), (-1, bytes(32))):
        with pytest.raises(EntryError):
            view.get(kind, key)
        with pytest.raises(EntryError):
            view.find_many(kind, np.zeros((1, len(key)), np.uint8))


def test_a_row_shorter_than_the_entry_has_its_start():
    one = put(VARYING, b"k" * 12, bytes(range(200)))
    view = view_of(build([one]))
    states, rows = view.find_many(VARYING, np.frombuffer(b"k" * 12, np.uint8).reshape(1, 12), 20)
    assert states.tolist() == [FOUND]
    assert rows.tobytes() == one[:20]


def test_memory_is_the_filter_the_fences_and_a_bit_a_page():
    view = view_of(build(hash_infos(10_000)))
    pages = -(-10_000 // 79)
    assert view.memory_bytes == view.header.filter_shape.cells + 8 * pages + 16


def test_threads_share_a_view():
    entries = hash_infos(30_000)
    extent = build(entries)
    keys = np.array([list(one[2:34]) for one in entries], np.uint8)
    expected = b"".join(entries)
    for _round in range(5):
        # Fresh, so that all of them verify its pages at once.
        view = view_of(extent)
        start, wrong = threading.Barrier(4), []

        def look(view: HashStoreView, start: threading.Barrier, wrong: list[int], number: int) -> None:
            start.wait()
            for _ in range(3):
                states, rows = view.find_many(HASH, np.roll(keys, number * 7000, axis=0), 50)
                if (
                    not (states == FOUND).all()
                    or rows.tobytes()
                    != np.roll(
                        np.frombuffer(expected, np.uint8).reshape(-1, 50), number * 7000, axis=0
                    ).tobytes()
                ):
                    wrong.append(number)
                if view.find_many(HASH, keys ^ 0x5A)[0].any():
                    wrong.append(number)

        threads = [threading.Thread(target=look, args=(view, start, wrong, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
