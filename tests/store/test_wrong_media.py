"""What is no store of ours, or no whole one, is refused with a clear error, soon, and without a byte written."""

from __future__ import annotations

import gzip
import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from real_media import digest, loop_over, mounted, run
from store_records import info, rows

import siltstone
from siltstone.errors import (
    ForeignVolumeError,
    MediumError,
    PluginError,
    RefusedDeviceError,
    SiltstoneError,
    VersionError,
)

# A second is what people are told; a test that waits for a busy machine waits longer.
pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20
SIZE = 4 * MIB


def unused(path: Path) -> tuple[str, int, int]:
    """What would differ if anything had been written."""
    return digest(path), path.stat().st_mtime_ns, path.stat().st_size


def refuse_all(target, *, create=True, expected=(ForeignVolumeError,)):
    """Every way to open, or to create without overwriting, is refused; the errors."""
    calls = [
        lambda: siltstone.open(target),
        lambda: siltstone.open(target, create=False),
        lambda: siltstone.open(target, read_only=True),
    ]
    if create:
        calls.append(lambda: siltstone.create(target))
    errors = []
    for call in calls:
        with pytest.raises(expected) as caught:
            call()
        assert str(target).removeprefix("file:") in str(caught.value)
        errors.append(caught.value)
    return errors


# ---- files

NOISE = np.random.default_rng(1).bytes(SIZE)


def sqlite_database(path: Path) -> bytes:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE facts (name TEXT)")
    database.executemany("INSERT INTO facts VALUES (?)", [("x" * 500,)] * 4000)
    database.commit()
    database.close()
    return path.read_bytes()


def file_system(path: Path) -> bytes:
    path.write_bytes(b"")
    os.truncate(path, 8 * MIB)
    run("mkfs.ext4", "-q", "-F", path)
    return path.read_bytes()


FOREIGN = {
    "random": lambda _path: NOISE,
    "text": lambda _path: b"These are my notes.\n" * 100_000,
    "short text": lambda _path: b"These are my notes.\n",
    "one byte": lambda _path: b"x",
    "SQLite": sqlite_database,
    "ext4": file_system,
    "gzip": lambda _path: gzip.compress(NOISE),
    "Python": lambda _path: Path(__file__).read_bytes(),
    "our magic and nothing else": lambda _path: b"SILTSTN1" + NOISE[8:],
    "our magic, then zeros": lambda _path: b"SILTSTN1" + bytes(SIZE),
    "our header, then noise": lambda _path: b"SILTSTN1\x00\x00\x00\x01\x00\x00\x01\x00" + NOISE,
    "our header, with the longest payload": lambda _path: b"SILTSTN1\x00\x00\x00\x01\x00\x07\xff\xe0" + NOISE,
    "our header, with a payload too long": lambda _path: b"SILTSTN1\x00\x00\x00\x01\xff\xff\xff\xff" + NOISE,
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused_and_not_written(path, make):
    path.write_bytes(make(path))
    before = unused(path)
    # Our magic with a number behind it that we do not know may be a version to come.
    refuse_all(path, expected=(ForeignVolumeError, VersionError))
    assert unused(path) == before


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
@pytest.mark.parametrize("size", [1, 511, 4096, MIB - 1, MIB, SIZE])
def test_a_filled_file_is_refused_and_not_written(path, filler, size):
    path.write_bytes(filler * size)
    before = unused(path)
    # Nothing would be lost by creating a store there, so that is allowed, but opening never does it.
    refuse_all(path, create=False)
    assert unused(path) == before


def test_an_empty_file_is_not_read_as_a_store(path):
    path.touch()
    for options in ({"read_only": True}, {"create": False}):
        with pytest.raises(ForeignVolumeError, match=r"store\.silt"):
            siltstone.open(path, **options)
    assert path.stat().st_size == 0


def test_a_directory_is_refused(tmp_path):
    refuse_all(tmp_path, expected=(RefusedDeviceError, PluginError))
    refuse_all(f"file:{tmp_path}", expected=(RefusedDeviceError,))
    assert not list(tmp_path.iterdir())


def test_what_cannot_hold_a_store_is_refused(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for target in (fifo, "/dev/null"):
        refuse_all(target, expected=(RefusedDeviceError, PluginError))
    with pytest.raises(SiltstoneError):
        siltstone.open(tmp_path / "absent" / "store.silt")
    for target in ("", tmp_path / ("n" * 300), tmp_path / "n\0n", "nonesuch:x"):
        with pytest.raises(SiltstoneError):
            siltstone.open(target)
    assert [entry.name for entry in tmp_path.iterdir()] == ["fifo"]


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory) -> bytes:
    """The bytes of a store with some closed journals, closed cleanly."""
    path = tmp_path_factory.mktemp("whole") / "store.silt"
    with siltstone.open(path, shards=2, erase_block=64 * 1024) as store:
        store.put_many(*rows(range(8000)))
    return path.read_bytes()


def lengths(size: int) -> list[int]:
    """Where to cut: around every border, and here and there."""
    borders = {0, 1, 8, 24, 32, 100, 512, 4096, 8192, MIB // 2, MIB // 2 + 32, MIB, MIB + 4096, size}
    random = np.random.default_rng(3).integers(1, size, 20).tolist()
    near = {border + step for border in (*borders, *range(MIB, size, 512 * 1024)) for step in (-1, 0, 1)}
    return sorted(length for length in {*near, *random} if 0 < length < size)


def test_a_store_that_was_cut_is_refused_at_any_length(path, whole_store):
    path.write_bytes(whole_store)
    for length in reversed(lengths(len(whole_store))):
        os.truncate(path, length)
        before = unused(path)
        for options in ({}, {"read_only": True}):
            with pytest.raises((ForeignVolumeError, MediumError)) as caught:
                siltstone.open(path, **options)
            assert str(length) in str(caught.value), "the message says how long it is"
        # What is still recognised as ours is not formatted over.
        if length > 4096:
            with pytest.raises(SiltstoneError):
                siltstone.create(path)
        assert unused(path) == before
    path.write_bytes(whole_store)
    with siltstone.open(path) as store:
        assert len(store) == 8000


# ---- devices

DEVICE_CONTENTS = {
    **{name: FOREIGN[name] for name in ("random", "text", "SQLite", "ext4", "our magic and nothing else")},
    "zeros": lambda _path: b"",
    "ones": lambda _path: b"\xff" * SIZE,
}


@pytest.mark.root
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("name", DEVICE_CONTENTS)
def test_a_foreign_device_is_refused_and_not_written(tmp_path, name, sector, direct):
    image = tmp_path / "image"
    image.write_bytes(DEVICE_CONTENTS[name](tmp_path / "content"))
    os.truncate(image, 16 * MIB)
    before = digest(image), image.stat().st_mtime_ns
    with loop_over(image, sector=sector) as device:
        for call in (
            lambda: siltstone.open(device, backend_options={"direct": direct}),
            lambda: siltstone.open(device, read_only=True, backend_options={"direct": direct}),
        ):
            with pytest.raises((ForeignVolumeError, RefusedDeviceError, VersionError)) as caught:
                call()
            assert device in str(caught.value)
        if name not in ("zeros", "ones"):
            with pytest.raises((ForeignVolumeError, RefusedDeviceError, VersionError)):
                siltstone.create(device)
    assert (digest(image), image.stat().st_mtime_ns) == before


@pytest.mark.root
def test_a_mounted_device_is_refused_and_not_written(tmp_path):
    image = tmp_path / "image"
    file_system(image)
    with loop_over(image) as device, mounted(device, tmp_path / "mounted", "-o", "ro,noload"):
        before = digest(image)
        for call in (
            lambda: siltstone.open(device),
            lambda: siltstone.create(device),
            lambda: siltstone.create(device, overwrite=True),
            lambda: siltstone.create(device, overwrite=True, force=["mounted"]),
        ):
            with pytest.raises(RefusedDeviceError) as caught:
                call()
            assert caught.value.reason == "mounted"
            assert str(tmp_path / "mounted") in str(caught.value)
        assert digest(image) == before


@pytest.mark.root
def test_a_device_that_was_cut_is_refused(tmp_path, whole_store):
    image = tmp_path / "image"
    for length in (512, 4096, MIB // 2, MIB, MIB + 4096, len(whole_store) - 4096):
        image.write_bytes(whole_store[:length])
        before = digest(image)
        with loop_over(image) as device:
            for options in ({}, {"read_only": True}):
                with pytest.raises((ForeignVolumeError, MediumError)) as caught:
                    siltstone.open(device, **options)
                assert device in str(caught.value)
        assert digest(image) == before


# ---- superblocks

SLOTS = (0, MIB // 2)


def resealed(slot: bytes, *, version: int | None = None, sequence: int | None = None) -> bytes:
    """A slot with another version or sequence, its checksum right."""
    import xxhash

    head = bytearray(slot[:24])
    if version is not None:
        head[8:12] = version.to_bytes(4, "big")
    if sequence is not None:
        head[16:24] = sequence.to_bytes(8, "big")
    payload = slot[32 : 32 + int.from_bytes(slot[12:16], "big")]
    return bytes(head) + xxhash.xxh3_64_intdigest(bytes(head) + payload).to_bytes(8, "big") + payload


@pytest.fixture
def store_path(path, whole_store) -> Path:
    """A whole store of its own."""
    path.write_bytes(whole_store)
    return path


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def slot_of(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(SLOTS[number])
        slot = file.read(64 * 1024)
    return slot[: 32 + int.from_bytes(slot[12:16], "big")]


def sequence_of(slot: bytes) -> int:
    return int.from_bytes(slot[16:24], "big")


# One slot alone whose checksum does not hold is damaged, and the other one counts.
@pytest.mark.parametrize(("slots", "sealed"), [((0,), True), ((1,), True), ((0, 1), True), ((0, 1), False)])
def test_a_superblock_of_another_version_is_refused_and_not_written(store_path, slots, sealed):
    for number in slots:
        changed = resealed(slot_of(store_path, number), version=2)
        # A later version may have another checksum; its number stands where ours does.
        patch(store_path, SLOTS[number], changed if sealed else changed[:24] + bytes(8) + changed[32:])
    before = unused(store_path)
    for options in ({}, {"read_only": True}):
        with pytest.raises(VersionError, match="version 2") as caught:
            siltstone.open(store_path, **options)
        assert (caught.value.version, caught.value.known) == (2, 1)
    with pytest.raises(SiltstoneError):
        siltstone.create(store_path)
    assert unused(store_path) == before


DAMAGES = {
    "zeroed": lambda slot: bytes(len(slot)),
    "header zeroed": lambda slot: bytes(32) + slot[32:],
    "a bit flipped in the payload": lambda slot: slot[:100] + bytes([slot[100] ^ 1]) + slot[101:],
    "a bit flipped in the sequence": lambda slot: slot[:23] + bytes([slot[23] ^ 1]) + slot[24:],
    "torn after a sector": lambda slot: slot[:512] + bytes(len(slot) - 512),
    "noise": lambda slot: NOISE[: len(slot)],
    "a length beyond all": lambda slot: slot[:12] + b"\xff" * 4 + slot[16:],
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_one_damaged_slot_loses_nothing_and_is_mended_by_the_next_write(store_path, number, damage):
    patch(store_path, SLOTS[number], damage(slot_of(store_path, number)))
    before = unused(store_path)
    with siltstone.open(store_path, read_only=True) as store:
        assert len(store) == 8000
    assert unused(store_path) == before
    with siltstone.open(store_path) as store:
        assert len(store) == 8000
        # Housekeeping may be in the middle of a write of its own.
        deadline = time.monotonic() + 10
        while slot_of(store_path, 0) != slot_of(store_path, 1):
            assert time.monotonic() < deadline, "the slots stay different"
        store.put(info(9000))
    patch(store_path, SLOTS[1 - number], damage(slot_of(store_path, 1 - number)))
    with siltstone.open(store_path, read_only=True) as store:
        assert len(store) == 8001


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_two_damaged_slots_are_refused_and_not_written(store_path, damage):
    for number in (0, 1):
        patch(store_path, SLOTS[number], damage(slot_of(store_path, number)))
    before = unused(store_path)
    for error in refuse_all(store_path, create=False):
        assert "slots are damaged" in str(error)
    assert unused(store_path) == before


@pytest.mark.parametrize("older", [0, 1])
def test_the_slot_with_the_higher_sequence_counts(store_path, older):
    stale = slot_of(store_path, older)
    with siltstone.open(store_path) as store:
        store.put_many(*rows(range(8000, 30_000)))
    newest = sequence_of(slot_of(store_path, 0))
    patch(store_path, SLOTS[older], stale)
    with siltstone.open(store_path) as store:
        assert len(store) == 30_000
        assert store.info().sequence > newest
    assert slot_of(store_path, 0) == slot_of(store_path, 1)


def test_slots_that_contradict_are_damage_and_not_written(store_path, tmp_path):
    other = tmp_path / "other.silt"
    siltstone.create(other, shards=2, erase_block=64 * 1024)
    mine = slot_of(store_path, 1)
    contradictions = {
        "two volumes": slot_of(other, 0),
        f"sequence {sequence_of(mine)}": resealed(
            mine.replace(b"\xa5clean\xc3", b"\xa5clean\xc2"), sequence=sequence_of(mine)
        ),
    }
    for said, slot in contradictions.items():
        patch(store_path, 0, slot)
        before = unused(store_path)
        for options in ({}, {"read_only": True}):
            with pytest.raises(siltstone.DamageError, match=said) as caught:
                siltstone.open(store_path, **options)
            assert str(store_path) in str(caught.value)
        assert unused(store_path) == before
