"""Cuts: they cover a file, and do not depend on how it was read."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siltstone.cli.cutting import CHUNK_SIZE_MAX, CHUNK_SIZE_MIN, ContentCutter, Cutter, FixedCutter

FIXED = FixedCutter(512)
CONTENT = ContentCutter()
CUTTERS = st.sampled_from([FIXED, CONTENT])


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Content of some hundred KiB, with stretches that are random, zero, and repeated."""
    source = random.Random(draw(st.integers(0, 1 << 32)))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.integers(0, 150_000))
        kind = draw(st.sampled_from(["random", "zero", "again"]))
        if kind == "random":
            parts.append(source.randbytes(size))
        elif kind == "zero":
            parts.append(bytes(size))
        elif parts:
            parts.append(parts[-1])
    return b"".join(parts)


def cut_in_pieces(cutter: Cutter, data: bytes, piece_sizes: list[int]) -> list[int]:
    """Cut `data` given in pieces of these sizes, again and again; what is left of a piece comes again."""
    lengths: list[int] = []
    offset = turn = 0
    while offset < len(data):
        # A cutter makes no block of less than it may need, so a piece is never shorter than that.
        size = cutter.size_max + piece_sizes[turn % len(piece_sizes)]
        piece = memoryview(data)[offset : offset + size]
        made = cutter.cut(piece, end=offset + len(piece) == len(data))
        assert made, "a piece of the greatest block size always gives a block"
        lengths += made
        offset += sum(made)
        turn += 1
    return lengths


@given(CUTTERS, contents())
def test_blocks_cover_the_file(cutter: Cutter, data: bytes) -> None:
    lengths = cutter.cut(memoryview(data), end=True)
    assert sum(lengths) == len(data)
    assert all(0 < length <= cutter.size_max for length in lengths)


@given(CUTTERS, contents(), st.lists(st.integers(0, 200_000), min_size=1, max_size=5))
def test_cuts_do_not_depend_on_the_pieces_that_were_read(
    cutter: Cutter, data: bytes, pieces: list[int]
) -> None:
    assert cut_in_pieces(cutter, data, pieces) == cutter.cut(memoryview(data), end=True)


@given(CUTTERS, contents(), st.integers(0, 400_000))
@example(CONTENT, bytes(200_000), 40_000)
@example(CONTENT, bytes(200_000), CHUNK_SIZE_MAX + 40_000)
@example(FIXED, bytes(2000), 700)
def test_without_the_end_only_what_is_certain_is_cut(cutter: Cutter, data: bytes, size: int) -> None:
    begin = memoryview(data)[:size]
    certain = cutter.cut(begin, end=False)
    assert len(begin) - sum(certain) < cutter.size_max
    assert cutter.cut(memoryview(data), end=True)[: len(certain)] == certain


def test_content_defined_blocks_keep_their_bounds_and_come_again_after_an_insertion() -> None:
    data = random.Random(1).randbytes(2_000_000)
    plain = blocks_of(data)
    assert len(plain) > 50
    assert all(CHUNK_SIZE_MIN <= len(block) <= CHUNK_SIZE_MAX for block in plain[:-1])
    shifted = blocks_of(data[:1000] + b"inserted" + data[1000:])
    # All but the blocks around the insertion are found again: that is what it is for.
    assert len(set(plain) & set(shifted)) >= len(plain) - 3


def blocks_of(data: bytes) -> list[bytes]:
    blocks, offset = [], 0
    for length in CONTENT.cut(memoryview(data), end=True):
        blocks.append(data[offset : offset + length])
        offset += length
    return blocks


@pytest.mark.parametrize("cutter", [FIXED, CONTENT])
@pytest.mark.parametrize("end", [False, True])
def test_nothing_has_no_block(cutter: Cutter, end: bool) -> None:
    assert cutter.cut(memoryview(b""), end=end) == []
