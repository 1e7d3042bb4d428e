"""Superblocks at the edge of what the format holds: numbers that leave no next one, and no room for one more byte."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import siltstone
from siltstone import HashInfo
from siltstone.errors import DiskFullError, ForeignVolumeError
from siltstone.format.constants import SUPERBLOCK_PAYLOAD_MAX
from siltstone.format.superblock import KIND_RESERVE, Extent, Superblock
from siltstone.format.superblock_slot import choose_slot, decode_slot, encode_slot

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SLOTS = (0, MIB // 2)
BLOCK = 65536


def info(number: int) -> HashInfo:
    return HashInfo(number.to_bytes(32, "big"), number, number)


def superblock_of(path: Path) -> Superblock:
    with path.open("rb") as file:
        slots = [decode_slot(file.read(MIB // 2)) for _slot in SLOTS]
    return choose_slot(*slots, url=str(path)).superblock


def write(path: Path, superblock: Superblock) -> None:
    """Put it into both slots, and make the file as long as its extents."""
    data = encode_slot(superblock)
    with path.open("r+b") as file:
        for slot in SLOTS:
            file.seek(slot)
            file.write(data)
        file.truncate(max(MIB, max(extent.stop for extent in superblock.extents)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of one shard that was closed."""
    target = tmp_path / "store.silt"
    with siltstone.open(target, shards=1, erase_block=BLOCK) as store:
        store.put(info(1))
    return target


def huge_order(superblock: Superblock) -> Superblock:
    return replace(superblock, extents=tuple(replace(e, order=2**63) for e in superblock.extents[:1]))


def huge_reserve(superblock: Superblock) -> Superblock:
    stop = max(extent.stop for extent in superblock.extents)
    extent = Extent(superblock.next_extent, stop, 96 * MIB, KIND_RESERVE, 0)
    kept = tuple(extent for extent in superblock.extents if extent.kind != KIND_RESERVE)
    return replace(superblock, next_extent=superblock.next_extent + 1, extents=(*kept, extent))


@pytest.mark.parametrize(
    ("forge", "what"),
    [
        (lambda superblock: replace(superblock, epoch=2**64 - 1), "epoch is 18446744073709551615"),
        (lambda superblock: replace(superblock, epoch=2**63), "epoch is 9223372036854775808"),
        (lambda superblock: replace(superblock, sequence=2**64 - 1), "sequence 18446744073709551615"),
        (huge_order, "order is 9223372036854775808"),
        (huge_reserve, "reserve"),
    ],
)
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_number_that_has_no_next_one_is_refused_and_not_written(
    path, forge, what, clean, read_only
) -> None:
    write(path, replace(forge(superblock_of(path)), clean=clean))
    before = path.read_bytes()
    for _opening in range(2):
        with pytest.raises(ForeignVolumeError, match=what):
            siltstone.open(path, read_only=read_only)
    assert path.read_bytes() == before


def test_extent_ids_that_are_used_up_are_a_full_medium(path: Path) -> None:
    write(path, replace(superblock_of(path), next_extent=2**32 - 2))
    with siltstone.open(path) as store:
        assert store.get(info(1).hash) == info(1)
        with pytest.raises(DiskFullError):
            for number in range(2, 10**5):
                store.put(info(number))
        taken = len(store)
    with siltstone.open(path) as store:
        assert len(store) == taken


def room_in(superblock: Superblock) -> int:
    """Bytes that a slot has left."""
    return SUPERBLOCK_PAYLOAD_MAX - int.from_bytes(encode_slot(superblock)[12:16], "big")


def filled(superblock: Superblock, room: int) -> Superblock:
    """The superblock with free extents, kept apart by gaps, so that its slot has `room` bytes left."""
    at = max(extent.stop for extent in superblock.extents)
    first = superblock.next_extent + 70_000

    def with_free(count: int) -> Superblock:
        free = tuple(Extent(first + n, at + 2 * n * BLOCK, BLOCK) for n in range(count))
        return replace(superblock, next_extent=first + count, extents=(*superblock.extents, *free))

    each = room_in(with_free(100)) - room_in(with_free(101))
    full = with_free(100 + (room_in(with_free(100)) - room) // each - 1)
    # The rest is made up by numbers that free extents do not use: 0 takes one byte, these 1, 2, 4 and 8 more.
    over = room_in(full) - room
    orders = [1 << 40] * (over // 8) + [
        order for more, order in ((4, 1 << 20), (2, 1 << 10), (1, 1 << 7)) if over % 8 & more
    ]
    free = full.extents[-len(orders) :]
    widened = [replace(extent, order=order) for extent, order in zip(free, orders, strict=True)]
    full = replace(full, extents=(*full.extents[: -len(orders)], *widened))
    assert room_in(full) == room
    return full


def put_until_full(store: siltstone.Store) -> int:
    """Put, be told that there is no room, and flush; how many records are there."""
    with pytest.raises(DiskFullError):
        for number in range(10**6, 10**6 + 10**5):
            store.put(info(number))
    store.flush()
    assert store.get(info(1).hash) == info(1)
    return len(store)


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("ending", ["close", "death"])
def test_a_superblock_with_hardly_any_room_still_serves(path: Path, died: bool, ending: str) -> None:
    """Also with just enough of it for a spare, which may not take what closing and opening need."""
    if died:
        store = siltstone.open(path)
        for number in range(2, 1500):
            store.put(info(number))
        store.flush()
        store._core.abandon()
    superblock = superblock_of(path)
    for room in (64, 104, 108, 112, 120, 180):
        kept = tuple(extent for extent in superblock.extents if extent.kind != KIND_RESERVE)
        image = path.read_bytes()
        write(path, filled(replace(superblock, extents=kept), room))
        with siltstone.open(path) as store:
            assert not store.read_only
            assert store.get(info(1).hash) == info(1)
            records = put_until_full(store)
            if ending == "death":
                store._core.abandon()
                store._core = None
        with siltstone.open(path) as store:
            assert not store.read_only
            assert len(store) == records
        path.write_bytes(image)
