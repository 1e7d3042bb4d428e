"""What is in the extent of a hash store, byte for byte as docs/format.md has it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import page_model
import pytest
from built_stores import (
    BODY,
    COLLISIONS,
    GENERATION,
    HASH,
    ONE,
    PAGE,
    SECRET,
    SEED,
    SHORT,
    VARYING,
    build_packed,
    deletion,
    hash_infos,
    in_order,
    key_of,
    put,
    split,
    view_of,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from siltstone.hash_store.extent import HashStoreHeader


def hashed(packed: bytes) -> list[tuple[int, bytes]]:
    return [(page_model.siphash13(SECRET, *key_of(one)), one) for one in split(packed)]


def model_of(packed: bytes, header: HashStoreHeader, filter_cells: bytes) -> bytes:
    """The whole extent, the cells of the filter taken as they are."""
    entries = hashed(packed)
    pages = page_model.record_pages(entries)
    fields = {"seed": SEED, "generation": GENERATION}
    parts = []
    for number, (_first, held) in enumerate(pages, start=1):
        sizes = {len(one) for _hash, one in held}
        parts.append(
            page_model.sealed(
                page_model.record_body(held),
                index=number,
                part=1,
                used=sum(len(one) for _hash, one in held),
                count=len(held),
                size=sizes.pop() if len(sizes) == 1 else 0,
                **fields,
            )
        )
    fences = b"".join(first.to_bytes(8, "big") for first, _held in pages)
    for part, data in ((2, filter_cells), (3, fences)):
        for at in range(0, len(data), BODY):
            body = data[at : at + BODY]
            parts.append(
                page_model.sealed(
                    body.ljust(BODY, b"\xff"), index=len(parts) + 1, part=part, used=len(body), **fields
                )
            )
    filter_at = len(pages) + 1
    filter_pages = -(-len(filter_cells) // BODY)
    first = struct.pack(
        ">8sIIQQQIIIIIIIQIIQ",
        b"SILTHASH",
        1,
        1,
        len(entries),
        sum(one[1] == 0x04 for _hash, one in entries),
        len(packed),
        max((len(one) for _hash, one in entries), default=0),
        1,
        len(pages),
        filter_at,
        filter_pages,
        filter_at + filter_pages,
        -(-len(pages) // 508),
        header.filter_seed,
        header.filter_shape.segment_bits,
        header.filter_shape.segments,
        len({hash_ for hash_, _one in entries}),
    )
    head = page_model.sealed(first.ljust(BODY, b"\0"), index=0, part=0, used=len(first), **fields)
    return head + b"".join(parts)


def check(packed: bytes, chunks: int = 1) -> HashStoreHeader:
    extent, header = build_packed(packed, chunks=chunks)
    at = header.first_filter_page * PAGE
    cells = b"".join(bytes(extent[at + i * PAGE :][:BODY]) for i in range(header.filter_pages))
    cells = cells[: header.filter_shape.cells]
    assert extent[: header.clusters * PAGE] == model_of(packed, header, cells)
    shape = header.filter_shape.segment_bits, header.filter_shape.segments
    assert all(
        page_model.in_filter(hash_, cells, header.filter_seed, *shape) for hash_, _one in hashed(packed)
    )
    return header


@given(
    st.lists(
        st.one_of(
            st.builds(put, st.just(HASH), st.binary(min_size=32, max_size=32), st.just(bytes(16))),
            st.builds(put, st.just(SHORT), st.binary(min_size=5, max_size=5)),
            st.builds(put, st.just(VARYING), st.binary(min_size=12, max_size=12), st.binary(max_size=239)),
            st.builds(deletion, st.just(HASH), st.binary(min_size=32, max_size=32)),
        ),
        max_size=100,
    ),
    st.integers(1, 5),
)
def test_any_entries(entries, chunks):
    check(in_order(entries), chunks)


@pytest.mark.parametrize("count", [0, 1, 79, 80, 2000])
def test_entries_of_one_size(count):
    check(in_order(hash_infos(count)))


@pytest.mark.parametrize("missing", [-1, 0, 1])
def test_a_page_is_full_to_its_last_byte(missing):
    # 250 entries of 15 bytes, each with a tag, leave 64 bytes for the last in order and its tag.
    packed = in_order(put(VARYING, i.to_bytes(12, "big")) for i in range(250))
    greatest = max(page_model.siphash13(SECRET, *key_of(one)) for one in split(packed))
    numbers = (i.to_bytes(8, "big") for i in range(100_000))
    key = next(key for key in numbers if page_model.siphash13(SECRET, ONE, key) > greatest)
    last = put(ONE, key, bytes(64 - 1 - missing - 2 - 8))
    assert check(packed + last).record_pages == (2 if missing < 0 else 1)


def test_more_fences_than_a_page_holds():
    header = check(in_order(put(VARYING, i.to_bytes(12, "big"), bytes(239)) for i in range(15 * 510)))
    assert header.fence_pages == 2
    # More pages than are written at once, too.
    assert header.record_pages > 508


@pytest.mark.parametrize("pair", COLLISIONS)
def test_equal_hashes_are_in_the_order_of_type_and_key(pair):
    entries = [put(kind, key) for kind, key in pair]
    packed = in_order(entries)
    assert [key_of(one) for one in split(packed)] == sorted(pair)
    assert len({hash_ for hash_, _one in hashed(packed)}) == 1
    assert check(packed).hashes == 1


def test_pages_yields_what_was_built():
    packed = in_order([*hash_infos(500), deletion(HASH, bytes(32)), put(SHORT, b"abcde")])
    view = view_of(build_packed(packed)[0])
    assert b"".join(view.pages()) == packed
    view.verify()
