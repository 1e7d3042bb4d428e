"""How large a hash store is, before and after it is built."""

from __future__ import annotations

import pytest
from built_stores import BODY, PAGE, VARYING, build_packed, hash_infos, in_order, put
from hypothesis import given
from hypothesis import strategies as st

from siltstone.hash_store.extent import FilterShape, HashStoreHeader, plan


@pytest.mark.parametrize("count", [0, 1, 2, 78, 79, 80, 158, 159, 5000])
def test_the_plan_for_entries_of_one_size_is_exact(count):
    _extent, header = build_packed(in_order(hash_infos(count)))
    assert header.clusters == plan(count, count * 50, 50)
    assert header.record_pages == -(-count // 79)


@given(st.lists(st.integers(0, 239), max_size=400))
def test_the_plan_for_entries_of_any_size_is_enough(sizes):
    packed = in_order(put(VARYING, i.to_bytes(12, "big"), bytes(size)) for i, size in enumerate(sizes))
    header = build_packed(packed)[1]
    assert header.clusters <= plan(len(sizes), len(packed))
    assert header.clusters <= plan(len(sizes) + 10, len(packed) + 300)


@pytest.mark.parametrize("count", [100_000, 300_000, 1_250_000, 10_000_000, 100_000_000])
def test_a_filter_takes_at_most_nine_and_a_half_bits_a_record(count):
    assert -(-FilterShape.of(count).cells // BODY) * PAGE * 8 / count <= 9.5


def test_a_filter_of_more_hashes_is_never_smaller():
    cells = [FilterShape.of(count).cells for count in range(20_000)]
    assert cells == sorted(cells)


@pytest.mark.parametrize("count", [-1, 1 << 32])
def test_a_number_that_no_hash_store_holds_is_refused(count):
    with pytest.raises(ValueError, match="entries"):
        plan(count, 50)


def test_a_header_is_read_as_it_was_written():
    header = build_packed(in_order(hash_infos(300)))[1]
    assert HashStoreHeader.parse(header.to_bytes(), header.clusters) == header
    with pytest.raises(ValueError, match="clusters"):
        HashStoreHeader.parse(header.to_bytes(), header.clusters - 1)
