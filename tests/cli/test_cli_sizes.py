"""Sizes as they are written, and names as they are shown."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.cli.sizes import ByteCount, format_bytes, printable


def parse(text: str, **bounds: int) -> int:
    result = ByteCount(**bounds).convert(text, None, None)
    assert isinstance(result, int)
    return result


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("4KiB", 4096),
        ("4kib", 4096),
        ("4 KiB", 4096),
        ("4kB", 4000),
        ("4KB", 4000),
        ("1MiB", 1 << 20),
        ("1m", 1 << 20),
        ("2G", 2 << 30),
        ("1TiB", 1 << 40),
        ("1TB", 10**12),
    ],
)
def test_sizes_are_understood(text: str, size: int) -> None:
    assert parse(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "4x", "4.5k", "4kk", "4iB", "0x10", "4k 4k", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse(text)


def test_bounds_and_multiples_are_kept() -> None:
    assert parse("512", low=512, high=4096, multiple=512) == 512
    assert parse("4096", low=512, high=4096, multiple=512) == 4096
    for wrong in ("511", "4097", "1000", "4608"):
        with pytest.raises(click.BadParameter):
            parse(wrong, low=512, high=4096, multiple=512)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1 GiB"),
        (3 << 70, "3072 EiB"),
    ],
)
def test_sizes_are_shown_in_a_fitting_unit(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.binary(max_size=64))
def test_any_name_is_shown_without_control_characters(name: bytes) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")


def test_names_that_are_text_are_shown_as_they_are() -> None:
    assert printable("Überblick 2.txt") == "Überblick 2.txt"
    assert printable(b"\xff\x1b[2J\n") == "\\xff\\x1b[2J\\x0a"
