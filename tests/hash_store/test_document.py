"""The section of docs/format.md on hash stores: its tables leave no byte out, its figures are the engine's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from siltstone.hash_store.extent import HEADER_SIZE, FilterShape

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def table(heading: str, first: str) -> list[list[str]]:
    """The cells of the table under a heading whose first column has this name."""
    section = re.split(rf"^#+ {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    found = re.search(rf"^\| {first} \|.*\n\|[ |-]+\|\n((?:\|.*\|\n)+)", section, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines()]


@pytest.mark.parametrize(
    ("heading", "end"),
    [("A page of a hash store", 4096), ("The header page of a hash store", HEADER_SIZE)],
)
def test_the_fields_follow_one_another(heading, end):
    at = 0
    for field in table(heading, "field"):
        assert int(field[1]) == at, field
        at += int(field[2])
    assert at == end


def test_the_bits_of_a_filter_are_as_shown():
    counts = [10, 100, 1_000, 10_000, 100_000, 1_250_000, 10_000_000]
    cells, pages = table("The filter of a hash store", "records")
    for count, shown, shown_pages in zip(counts, cells[1:], pages[1:], strict=True):
        taken = FilterShape.of(count).cells
        assert float(shown) == pytest.approx(taken * 8 / count, abs=0.005)
        assert float(shown_pages.replace(",", "")) == pytest.approx(
            -(-taken // 4064) * 4096 * 8 / count, abs=0.05
        )
