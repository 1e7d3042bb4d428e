"""Superblock slots: what is written is read, what is damaged is noticed, and which of two slots counts."""

from __future__ import annotations

import struct
from dataclasses import replace

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from superblocks import MIB, SAMPLE, sealed_slot, superblocks

from siltstone.errors import DamageError, DiskFullError, ForeignVolumeError, VersionError
from siltstone.format import constants
from siltstone.format.seal import End
from siltstone.format.superblock import (
    CLOSED,
    KIND_JOURNAL,
    Extent,
    RecordedType,
    Superblock,
    dump_extent,
    parse_dump,
)
from siltstone.format.superblock_slot import (
    Slot,
    choose_slot,
    decode_slot,
    encode_slot,
    slot_length,
    slot_version,
)


@given(superblocks())
def test_a_superblock_comes_back_as_it_was(superblock):
    data = encode_slot(superblock)
    slot = decode_slot(data)
    assert slot is not None
    assert slot.superblock == superblock
    assert slot.sequence == superblock.sequence
    assert data.startswith(slot.data)
    assert len(data) % constants.CLUSTER_SIZE == 0
    assert not data[len(slot.data) :].strip(b"\0")
    assert slot_length(data) == len(slot.data)
    assert encode_slot(slot.superblock) == data


def test_the_header_is_where_the_table_says():
    data = encode_slot(SAMPLE)
    magic, version, length, sequence, checksum = struct.unpack_from(">8sIIQQ", data)
    payload = data[32 : 32 + length]
    assert (magic, version, sequence) == (b"SILTSTN1", 1, 9)
    assert checksum == xxhash.xxh3_64_intdigest(data[:24] + payload)
    found = msgpack.unpackb(payload, strict_map_key=False)
    assert list(found) == [
        "uuid", "cluster_size", "erase_block", "created", "shards", "epoch", "clean", "next_extent", "entry_types",
        "extents",
    ]  # fmt: skip
    assert found["entry_types"] == {2: ["hash_info", 1, "siltstone"]}
    assert found["extents"][0] == {
        "id": 1,
        "kind": "journal",
        "shard": 0,
        "order": 1,
        "state": "closed",
        "format": "sealed",
        "generation": 2,
        "end": [3, 100, None, 7],
        "dump": struct.pack(">QQ", MIB // 512, 131072),
    }


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_dump_is_the_rfcs(sector, length):
    dump = dump_extent(sector * 512, length)
    assert dump == struct.pack(">QQ", sector, length)
    assert parse_dump(dump) == (sector * 512, length)


def test_every_flipped_bit_of_a_slot_is_noticed():
    data = bytearray(encode_slot(SAMPLE))
    used = slot_length(data)
    assert used is not None
    for bit in range(used * 8):
        data[bit // 8] ^= 1 << bit % 8
        assert decode_slot(bytes(data)) is None, bit
        data[bit // 8] ^= 1 << bit % 8
    # What lies behind the payload is not the slot's: it says nothing.
    for bit in range(used * 8, len(data) * 8, 97):
        data[bit // 8] ^= 1 << bit % 8
        found = decode_slot(bytes(data))
        assert found is not None
        assert found.superblock == SAMPLE
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("sector", range(8))
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x5a"])
def test_a_torn_slot_is_noticed(sector, fill):
    # Random bytes in names make a payload that reaches into every sector.
    names = {number: RecordedType(f"{number:x}" * 40, 1, "d" * 30) for number in range(16, 50)}
    data = bytearray(encode_slot(replace(SAMPLE, entry_types=names)))
    assert slot_length(data) > 4096
    data[sector * 512 : (sector + 1) * 512] = fill * 512
    assert decode_slot(bytes(data)) is None


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33])
def test_a_slot_cut_short_is_none(size):
    assert decode_slot(encode_slot(SAMPLE)[:size]) is None


def test_zeros_ones_and_junk_are_no_slot():
    for data in (
        bytes(4096),
        b"\xff" * 4096,
        b"SILTSTN1" + b"\xff" * 4088,
        b"SILTSTN2" + encode_slot(SAMPLE)[8:],
    ):
        assert decode_slot(data) is None


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_another_version_is_named(version):
    data = sealed_slot(b"\x80", version=version)
    with pytest.raises(VersionError, match=str(version)) as caught:
        decode_slot(data, "file:somewhere")
    assert (caught.value.version, caught.value.known) == (version, 1)
    assert slot_version(data) == version


def test_a_superblock_that_is_too_large_says_so():
    extents = tuple(Extent(number, MIB + number * 65536, 65536) for number in range(6000))
    with pytest.raises(DiskFullError, match="6000 extents") as caught:
        encode_slot(replace(SAMPLE, next_extent=6000, extents=extents))
    assert caught.value.needed > constants.SUPERBLOCK_PAYLOAD_MAX


def test_as_many_extents_as_a_slot_holds_come_back():
    extents = tuple(
        Extent(number, MIB + number * 65536, 65536, KIND_JOURNAL, 0, number, CLOSED, end=End(1, 50, 0, 9))
        for number in range(4000)
    )
    full = replace(SAMPLE, next_extent=6000, extents=extents)
    slot = decode_slot(encode_slot(full))
    assert slot is not None
    assert slot.superblock == full


# ---- which of two slots


def slot_of(superblock: Superblock) -> Slot:
    slot = decode_slot(encode_slot(superblock))
    assert slot is not None
    return slot


OLD = slot_of(replace(SAMPLE, sequence=8))
NEW = slot_of(SAMPLE)
NEW_TWIN = slot_of(SAMPLE)
NEW_OTHER = slot_of(replace(SAMPLE, epoch=4))
STRANGER = slot_of(replace(SAMPLE, uuid=bytes(16), sequence=8))
STRANGER_SAME = slot_of(replace(SAMPLE, uuid=bytes(16)))


@pytest.mark.parametrize(
    ("slots", "outcome"),
    [
        ((None, None), ForeignVolumeError),
        ((NEW, None), NEW),
        ((OLD, None), OLD),
        ((OLD, NEW), NEW),
        ((NEW, NEW_TWIN), NEW),
        ((NEW, NEW_OTHER), DamageError),
        ((NEW, STRANGER), DamageError),
        ((NEW, STRANGER_SAME), DamageError),
    ],
    ids=[
        "none",
        "one",
        "one old",
        "older and newer",
        "twins",
        "same sequence, other bytes",
        "two volumes",
        "two volumes, same sequence",
    ],
)
def test_which_slot_counts(slots, outcome):
    for first, second in (slots, slots[::-1]):
        if isinstance(outcome, Slot):
            assert choose_slot(first, second, "file:somewhere") == outcome
        else:
            with pytest.raises(outcome, match="file:somewhere"):
                choose_slot(first, second, "file:somewhere")
