"""Bytes that a hostile writer sealed end in an error or in an answer, and in nothing worse."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import page_model
import pytest
from built_stores import (
    BODY,
    GENERATION,
    HASH,
    PAGE,
    SECRET,
    SEED,
    VARYING,
    build,
    check_damage,
    hash_infos,
    in_order,
    key_of,
    merged_of,
    reseal,
    split,
    store_of_many_pages,
    use,
    view_of,
)
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import DamageError, VersionError

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct(">8sIIQQQIIIIIIIQIIQ")
NUMBERS = st.one_of(
    st.integers(0, 20), st.sampled_from([255, 508, 1 << 16, (1 << 27) - 1, 1 << 31, (1 << 32) - 1])
)
LARGE = st.one_of(NUMBERS, st.sampled_from([(1 << 63) - 1, (1 << 64) - 1]))


@given(st.integers(1, 16), st.data())
def test_a_header_with_any_field_changed(field, data):
    extent = store_of_many_pages()
    fields = list(HEADER.unpack_from(extent))
    fields[field] = data.draw(LARGE if field in (3, 4, 5, 13, 16) else NUMBERS)
    HEADER.pack_into(extent, 0, *fields)
    reseal(extent, 0)
    use(extent)


@given(st.lists(NUMBERS, min_size=11, max_size=11), st.lists(LARGE, min_size=5, max_size=5))
def test_a_header_of_any_numbers(small, large):
    extent = store_of_many_pages()
    fields = [b"SILTHASH", 1, 1, *large[:3], *small[:7], large[3], *small[7:9], large[4]]
    HEADER.pack_into(extent, 0, *fields)
    reseal(extent, 0)
    use(extent)


def test_a_header_that_lies_is_refused():
    extent = store_of_many_pages()
    fields = HEADER.unpack_from(extent)
    names = (
        "magic version readable entries tombstones bytes largest first_record records first_filter filters"
    )
    names += " first_fence fences seed bits segments hashes"
    believed = {"version", "seed"}
    for at, name in enumerate(names.split()):
        for value in (0, fields[at] + 1 if at else b"SILTHASI", 1 << 31):
            changed = bytearray(extent)
            lie = list(fields)
            lie[at] = bytes(8) if at == 0 and value in (0, 1 << 31) else value
            HEADER.pack_into(changed, 0, *lie)
            reseal(changed, 0)
            if lie[at] == fields[at] or name in believed:
                continue
            if name in {"entries", "tombstones", "bytes", "hashes", "largest", "readable"}:
                # Some are not seen before all is read; none does harm.
                use(changed)
                continue
            with pytest.raises(DamageError) as caught:
                view_of(changed)
            # A filter of another size that its pages could hold is told by them.
            check_damage(caught.value, caught.value.cluster if name in {"bits", "segments"} else 0)


def test_a_store_with_another_number_of_entries_than_it_says_is_not_merged():
    extent = store_of_many_pages()
    fields = list(HEADER.unpack_from(extent))
    # Entries, and different hashes among them.
    fields[3] -= 1
    fields[16] -= 1
    HEADER.pack_into(extent, 0, *fields)
    reseal(extent, 0)
    with pytest.raises(DamageError, match="401 entries with 1 tombstones, not 400") as caught:
        merged_of([view_of(extent)])
    check_damage(caught.value, 0)


def test_a_newer_format_is_named():
    extent = store_of_many_pages()
    fields = list(HEADER.unpack_from(extent))
    fields[1:3] = 7, 1
    HEADER.pack_into(extent, 0, *fields)
    reseal(extent, 0)
    assert view_of(extent).records == 401
    fields[1:3] = 7, 2
    HEADER.pack_into(extent, 0, *fields)
    reseal(extent, 0)
    with pytest.raises(VersionError, match="format 7, readable from format 2") as caught:
        view_of(extent)
    assert (caught.value.version, caught.value.known) == (7, 1)


@given(
    st.integers(1, 8),
    st.binary(max_size=100),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.sampled_from([0, 1, 2, 3, 50, 254, 255, 4064, 0xFFFF]),
    st.integers(0, 1 << 32),
)
def test_a_page_of_any_bytes_with_a_seal_that_is_right(cluster, pattern, used, count, size, seed):
    extent = store_of_many_pages()
    header = view_of(extent).header
    part = 1 if cluster < header.first_filter_page else 2 if cluster < header.first_fence_page else 3
    noise = np.random.default_rng(seed).integers(0, 256, BODY, np.uint8).tobytes()
    body = ((pattern * (BODY // max(len(pattern), 1)))[:BODY] if pattern else noise).ljust(BODY, b"\0")
    extent[cluster * PAGE : (cluster + 1) * PAGE] = page_model.sealed(
        body, seed=SEED, generation=GENERATION, index=cluster, part=part, used=used, count=count, size=size
    )
    use(extent)


def forged_record_page(entries: list[bytes], tags: bytes | None = None, **seal: int) -> bytes:
    hashed = [(hash_of(one) if one[1] in (HASH, VARYING) else 0, one) for one in entries]
    body = page_model.record_body(hashed)
    if tags is not None:
        body = body[: BODY - len(tags)] + tags
    sizes = {len(one) for one in entries}
    fields = {
        "used": sum(map(len, entries)),
        "count": len(entries),
        "size": sizes.pop() if len(sizes) == 1 else 0,
        "index": 1,
        "part": 1,
        **seal,
    }
    return page_model.sealed(body, seed=SEED, generation=GENERATION, **fields)


@pytest.mark.parametrize(
    "forge",
    [
        lambda entries: forged_record_page(entries[::-1]),
        lambda entries: forged_record_page([entries[1], *entries[1:]]),
        lambda entries: forged_record_page(entries[1:]),
        lambda entries: forged_record_page([entries[0], *entries[2:], bytes([50, 0x99]) + bytes(48)]),
        lambda entries: forged_record_page([*entries[:-1], max(in_order_all(), key=hash_of)]),
    ],
)
def test_entries_in_the_wrong_place_are_damage_to_a_scrubber_and_a_merge(forge: Callable[..., bytes]):
    extent = bytearray(build(hash_infos(300)))
    view = view_of(extent)
    entries = list(split(view.page_entries(0)))
    extent[PAGE : 2 * PAGE] = forge(entries)
    view = view_of(extent)
    for call in (view.verify, lambda: list(view.pages()), lambda: merged_of([view])):
        with pytest.raises(DamageError) as caught:
            call()
        assert caught.value.cluster in (1, 2)
    use(extent)


def hash_of(one: bytes) -> int:
    return page_model.siphash13(SECRET, *key_of(one))


def in_order_all() -> list[bytes]:
    return list(split(in_order(hash_infos(300))))


def test_a_page_without_the_first_of_its_entries_is_damage_to_a_merge():
    extent = bytearray(build(hash_infos(300)))
    entries = list(split(view_of(extent).page_entries(1)))
    extent[2 * PAGE : 3 * PAGE] = forged_record_page(entries[1:], index=2)
    for call in (view_of(extent).verify, lambda: merged_of([view_of(extent)])):
        with pytest.raises(DamageError) as caught:
            call()
        check_damage(caught.value, 2)


def test_a_page_of_another_part_is_not_taken():
    extent = bytearray(build(hash_infos(300)))
    entries = list(split(view_of(extent).page_entries(0)))
    extent[PAGE : 2 * PAGE] = forged_record_page(entries, part=2)
    with pytest.raises(DamageError) as caught:
        view_of(extent).get(*key_of(entries[0]))
    check_damage(caught.value, 1)


def test_tags_that_are_wrong_are_damage_to_a_scrubber():
    extent = bytearray(build(hash_infos(300)))
    entries = list(split(view_of(extent).page_entries(0)))
    extent[PAGE : 2 * PAGE] = forged_record_page(entries, tags=bytes(79))
    with pytest.raises(DamageError) as caught:
        view_of(extent).verify()
    check_damage(caught.value, 1)


@pytest.mark.parametrize(
    "seal",
    [
        {"used": 0},
        {"used": 3949},
        {"used": 4063},
        {"used": 0xFFFF},
        {"count": 0},
        {"count": 78},
        {"count": 80},
        {"count": 0xFFFF},
        {"size": 49},
        {"size": 1},
        {"size": 0xFFFF},
    ],
)
def test_a_seal_that_does_not_go_with_the_entries_is_damage(seal):
    extent = bytearray(build(hash_infos(300)))
    view = view_of(extent)
    entries = list(split(view.page_entries(0)))
    extent[PAGE : 2 * PAGE] = forged_record_page(entries, **seal)
    view = view_of(extent)
    with pytest.raises(DamageError) as caught:
        view.get(HASH, entries[0][2:34])
    check_damage(caught.value, 1)


@pytest.mark.parametrize("value", [0, 1 << 63, (1 << 64) - 1, None])
def test_fences_that_are_all_the_same_or_random(value):
    extent = bytearray(build(hash_infos(3000)))
    header = view_of(extent).header
    at = header.first_fence_page * PAGE
    random = np.sort(np.random.default_rng(4).integers(0, 1 << 64, header.record_pages, np.uint64))
    fences = random if value is None else np.full(header.record_pages, value, np.uint64)
    extent[at : at + 8 * len(fences)] = fences.astype(">u8").tobytes()
    reseal(extent, header.first_fence_page)
    use(extent)
    extent[at : at + 8 * len(fences)] = np.sort(random)[::-1].astype(">u8").tobytes()
    reseal(extent, header.first_fence_page)
    with pytest.raises(DamageError) as caught:
        view_of(extent)
    check_damage(caught.value, header.first_fence_page)
