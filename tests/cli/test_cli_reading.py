"""Reading ahead: what comes out of slots and hashing processes is what is in the files."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from blake3 import blake3

from siltstone.cli.cutting import ContentCutter, FixedCutter
from siltstone.cli.hashing import HashPool
from siltstone.cli.reading import Load, Reader
from siltstone.cli.walking import Note, Source, Tally, Unreadable
from siltstone.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from siltstone.cli.cutting import Cutter
    from siltstone.cli.reading import Event

    Found = Generator[Source | Unreadable | Note, None, None]
    Block = tuple[bytes, int, int]

FUNCTIONS = {"sha256": hashlib.sha256, "blake3": blake3}


def sources(*paths: Path, sizes: dict[Path, int] | None = None) -> Found:
    """The files at `paths`, as a walk gives them; `sizes` tells other sizes than they have."""
    for path in paths:
        yield Source(str(path), os.open(path, os.O_RDONLY), (sizes or {}).get(path, path.stat().st_size))


@contextmanager
def reading(found: Found, cutter: Cutter, hash_name: str) -> Iterator[tuple[Reader, HashPool, Tally]]:
    tally = Tally()
    with closing(found), HashPool(hash_name, block_size_max=cutter.size_max, processes=2) as pool:
        reader = Reader(found, pool, cutter, tally)
        try:
            yield reader, pool, tally
        finally:
            reader.stop()


def read_all(
    found: Found, cutter: Cutter, hash_name: str = "sha256"
) -> tuple[list[Block], list[Event], Tally]:
    """Every block as (digest, length, first logical sector), and what else happened."""
    blocks, events = [], []
    with reading(found, cutter, hash_name) as (reader, pool, tally):
        for event in reader.events():
            if isinstance(event, Load):
                digests = pool.collect(event.slot, len(event.lengths))
                assert event.size == event.lengths.sum()
                for digest, length, sector in zip(
                    digests, event.lengths, event.first_logical_sects, strict=True
                ):
                    blocks.append((digest.tobytes(), int(length), int(sector)))
                reader.release(event.slot)
            else:
                events.append(event)
    return blocks, events, tally


def expected(cutter: Cutter, *contents: bytes, hash_name: str = "sha256") -> list[Block]:
    blocks = []
    for content in contents:
        offset = 0
        for length in cutter.cut(memoryview(content), end=True):
            digest = FUNCTIONS[hash_name](content[offset : offset + length]).digest()
            blocks.append((digest, length, offset // 512))
            offset += length
    return blocks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    """Files of sizes that could be special: none, less than a block, about a slot, several slots."""
    slot = 1 << 20
    noise = np.random.default_rng(5)
    sizes = [0, 1, 511, 512, 4095, 4096, 4097, slot - 1, slot, slot + 1, 5 * slot + 12345, 0, 7, *[3] * 5000]
    folder = tmp_path_factory.mktemp("files")
    contents = {folder / f"{number:05}": noise.bytes(size) for number, size in enumerate(sizes)}
    for path, content in contents.items():
        path.write_bytes(content)
    return contents


@pytest.mark.parametrize(
    "cutter",
    [FixedCutter(512), FixedCutter(4096), FixedCutter(3 * 512), FixedCutter(4 << 20), ContentCutter()],
)
@pytest.mark.parametrize("hash_name", ["sha256", "blake3"])
def test_blocks_are_those_of_the_files_in_order(
    files: dict[Path, bytes], cutter: Cutter, hash_name: str
) -> None:
    blocks, events, tally = read_all(sources(*files), cutter, hash_name)
    assert blocks == expected(cutter, *files.values(), hash_name=hash_name)
    assert (events, tally) == ([], Tally())


def test_a_file_that_became_shorter_ends_where_it_ends(tmp_path: Path) -> None:
    short, whole = tmp_path / "short", tmp_path / "whole"
    content = os.urandom(1_500_000)
    short.write_bytes(content)
    whole.write_bytes(b"whole")
    cutter = FixedCutter(4096)
    blocks, events, tally = read_all(sources(short, whole, sizes={short: 9_000_000}), cutter)
    assert blocks == expected(cutter, content, b"whole")
    assert tally.changed == 1
    assert [type(event) for event in events] == [Note]
    assert f"{short}: became shorter while it was read, at offset 1500000" in str(events)


def test_a_file_that_grows_is_read_up_to_the_size_it_had(tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(bytes(range(256)) * 40)
    cutter = FixedCutter(4096)
    blocks, events, tally = read_all(sources(growing, sizes={growing: 5000}), cutter)
    assert blocks == expected(cutter, growing.read_bytes()[:5000])
    assert (events, tally.changed) == ([], 0)


def test_a_read_that_fails_names_the_file_and_the_rest_is_read(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"good")

    def found() -> Found:
        # A folder can be opened, and refuses every read.
        yield Source("bad\n", os.open(tmp_path, os.O_RDONLY), 5000)
        yield from sources(good)

    cutter = FixedCutter(4096)
    blocks, events, tally = read_all(found(), cutter)
    assert blocks == expected(cutter, b"good")
    assert events == [Unreadable("bad\\x0a", "Is a directory, at offset 0")]
    assert tally.unreadable == 1


def test_stopping_early_leaves_nothing_behind(files: dict[Path, bytes]) -> None:
    # What is left behind, the fixture around every test would find.
    with reading(sources(*files), FixedCutter(512), "sha256") as (reader, _, _):
        assert isinstance(next(iter(reader.events())), Load)


def test_a_reader_that_never_began_can_be_stopped() -> None:
    with reading(sources(), FixedCutter(512), "sha256"):
        pass


def test_an_error_of_the_walk_reaches_who_takes_the_events() -> None:
    def broken() -> Found:
        yield Note("first")
        raise ZeroDivisionError("the walk broke")

    with reading(broken(), FixedCutter(512), "sha256") as (reader, _, _):
        events = reader.events()
        assert next(events) == Note("first")
        with pytest.raises(ZeroDivisionError, match="the walk broke"):
            next(events)


def test_a_hashing_process_that_dies_is_an_error(files: dict[Path, bytes]) -> None:
    with reading(sources(*files), FixedCutter(4096), "sha256") as (reader, pool, _):
        for process in pool._processes:
            process.kill()
            process.wait()
        events = reader.events()
        load = next(events)
        assert isinstance(load, Load)
        with pytest.raises(StateError, match="ended with status -9 before its work was done"):
            pool.collect(load.slot, len(load.lengths))
