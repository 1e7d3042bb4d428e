"""Pages that rotted, went astray or cannot be read end in an error that says where."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from built_stores import (
    EXTENT,
    GENERATION,
    HASH,
    PAGE,
    SECRET,
    TYPES,
    UUID,
    build,
    check_damage,
    hash_infos,
    key_of,
    merged_of,
    split,
    store_of_many_pages,
    view_of,
)

from siltstone.errors import DamageError, MediumError
from siltstone.format.seal import journal_key
from siltstone.hash_store.view import HashStoreView

if TYPE_CHECKING:
    from pathlib import Path

# ---- rot


def test_every_bit_of_a_small_store():
    entries = hash_infos(3)
    extent = build(entries)
    assert len(extent) == 4 * PAGE
    key = entries[0][2:34]
    for bit in range(len(extent) * 8):
        extent[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(DamageError) as caught:
            view_of(extent).get(HASH, key)
        assert caught.value.cluster == bit // 8 // PAGE
        extent[bit >> 3] ^= 1 << (bit & 7)
    assert view_of(extent).get(HASH, key) == entries[0]


@pytest.mark.parametrize("cluster", range(9))
def test_a_damaged_page_is_named(cluster):
    extent = store_of_many_pages()
    header = view_of(extent).header
    assert header.clusters == 9
    extent[cluster * PAGE + 100] ^= 1
    if not 1 <= cluster <= header.record_pages:
        with pytest.raises(DamageError) as caught:
            view_of(extent)
        check_damage(caught.value, cluster)
        return
    view = view_of(extent)
    damaged = [key_of(one) for one in split(bytes(extent[cluster * PAGE :][: 40 * 2]))][:1]
    for kind, key in damaged:
        with pytest.raises(DamageError) as caught:
            view.get(kind, key)
        check_damage(caught.value, cluster)
    for call in (view.verify, lambda: list(view.pages()), lambda: merged_of([view])):
        with pytest.raises(DamageError) as caught:
            call()
        check_damage(caught.value, cluster)
    # What lies elsewhere is found still.
    other = 1 if cluster != 1 else 2
    first = next(split(view.page_entries(other - 1)))
    assert view.get(*key_of(first)) == first


def test_every_page_in_the_place_of_every_other():
    extent = store_of_many_pages()
    clusters = view_of(extent).clusters
    for wrong in range(clusters):
        for right in range(clusters):
            if wrong == right:
                continue
            changed = bytearray(extent)
            changed[right * PAGE : (right + 1) * PAGE] = extent[wrong * PAGE : (wrong + 1) * PAGE]
            with pytest.raises(DamageError) as caught:
                view_of(changed).verify()
            check_damage(caught.value, right)


def test_a_search_takes_no_page_in_the_place_of_another():
    extent = build(hash_infos(300))
    first, second = (next(split(page)) for page in list(view_of(extent).pages())[:2])
    extent[PAGE : 3 * PAGE] = extent[2 * PAGE : 3 * PAGE] + extent[PAGE : 2 * PAGE]
    for cluster, one in ((1, first), (2, second)):
        with pytest.raises(DamageError) as caught:
            view_of(extent).get(*key_of(one))
        check_damage(caught.value, cluster)


def test_a_filter_page_in_the_place_of_another_is_not_taken():
    extent = build(hash_infos(9000))
    header = view_of(extent).header
    assert header.filter_pages > 2
    at = header.first_filter_page * PAGE
    extent[at : at + 2 * PAGE] = extent[at + PAGE : at + 2 * PAGE] + extent[at : at + PAGE]
    with pytest.raises(DamageError) as caught:
        view_of(extent)
    check_damage(caught.value, header.first_filter_page)


def test_pages_of_another_life_extent_or_volume_are_not_taken():
    extent = store_of_many_pages()
    for key in (
        journal_key(UUID, EXTENT, GENERATION + 1),
        journal_key(UUID, EXTENT + 1, GENERATION),
        journal_key(SECRET, EXTENT, GENERATION),
    ):
        with pytest.raises(DamageError):
            HashStoreView(extent, key, TYPES, SECRET)


def test_an_extent_that_is_cut_short_at_any_page():
    extent = store_of_many_pages()
    clusters = view_of(extent).clusters
    for size in [0, 1, PAGE - 1, *(n * PAGE - 1 for n in range(1, clusters + 1))]:
        with pytest.raises(DamageError):
            view_of(extent[:size])
    assert view_of(extent[: clusters * PAGE]).records == 401
    assert view_of(extent + bytes(12345)).records == 401


def test_what_verify_reads_can_be_chosen():
    extent = store_of_many_pages()
    view = view_of(extent)
    extent[5 * PAGE] ^= 1
    view.verify(0, 5)
    view.verify(6)
    view.verify(6, 1000)
    view.verify(1000)
    for first, count in ((5, 1), (0, 6), (0, None), (5, 1 << 40)):
        with pytest.raises(DamageError):
            view.verify(first, count)


# ---- a map whose bytes change, or cannot be read


def test_a_page_that_changes_after_it_was_verified_does_no_harm():
    extent = store_of_many_pages()
    view = view_of(extent)
    entries = [one for page in view.pages() for one in split(page)]
    assert all(view.get(*key_of(one)) == one for one in entries)
    random = np.random.default_rng(5)
    for round_ in range(200):
        for page in range(1, view.header.record_pages + 1):
            fill = random.integers(0, 256, PAGE, np.uint8).tobytes() if round_ % 4 else bytes([round_]) * PAGE
            extent[page * PAGE : (page + 1) * PAGE] = fill
        for kind, key in map(key_of, entries):
            with suppress(DamageError):
                view.get(kind, key)


def test_a_map_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "extent"
    entries = hash_infos(5000)
    path.write_bytes(build(entries))
    with path.open("r+b") as file:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        view = view_of(data)
        os.truncate(path, 2 * PAGE)
        for call in (
            lambda: [view.get(HASH, one[2:34]) for one in entries],
            lambda: view.find_many(HASH, np.array([list(one[2:34]) for one in entries], np.uint8)),
            view.verify,
            lambda: merged_of([view]),
            lambda: view_of(data),
        ):
            with pytest.raises(MediumError, match="could not be read"):
                call()
        assert view.get(HASH, bytes(32)) is None
