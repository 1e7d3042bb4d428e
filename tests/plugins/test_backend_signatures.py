"""What counts as the signature of somebody else, byte by byte, without a device."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone_plugins._signatures import REACH, Edges, signatures

SIZE = 8 * REACH
LAST = SIZE - REACH


def edges_with(*parts, size=SIZE):
    """The first and last MiB of a blank device of `size` bytes with (offset, bytes) written on it."""
    head, tail = bytearray(REACH), bytearray(REACH)
    for offset, data in parts:
        if offset < REACH:
            head[offset : offset + len(data)] = data
        if offset >= size - REACH:
            at = offset - (size - REACH)
            tail[at : at + len(data)] = data
    return Edges(size, bytes(head), bytes(tail))


EXT = struct.pack("<24xI28x2s18xI", 2, b"\x53\xef", 1)
FAT_BOOT = b"\xeb\x3c\x90mkdosfs\0" + struct.pack("<HBHBHHBH", 512, 4, 1, 2, 512, 8192, 0xF8, 32)


@pytest.mark.parametrize(
    ("name", "reason", "parts"),
    [
        ("xfs", "signature", [(0, b"XFSB")]),
        ("ext2/3/4", "signature", [(1024, EXT)]),
        ("btrfs", "signature", [(65600, b"_BHRfS_M")]),
        ("LUKS", "signature", [(0, b"LUKS\xba\xbe\x00\x01")]),
        ("LUKS", "signature", [(16384, b"SKUL\xba\xbe")]),
        ("LUKS", "signature", [(512 * 1024, b"SKUL\xba\xbe")]),
        ("LVM2", "signature", [(512 + 24, b"LVM2 001")]),
        ("md", "signature", [(4096, b"\xfc\x4e\x2b\xa9")]),
        ("md", "signature", [(SIZE - 8192, b"\xfc\x4e\x2b\xa9")]),
        ("md", "signature", [(SIZE - 65536, b"\xa9\x2b\x4e\xfc")]),
        ("swap", "signature", [(4086, b"SWAPSPACE2")]),
        ("swap", "signature", [(65526, b"SWAPSPACE2")]),
        ("NTFS", "signature", [(3, b"NTFS    ")]),
        ("exFAT", "signature", [(3, b"EXFAT   ")]),
        ("FAT", "signature", [(82, b"FAT32   ")]),
        ("FAT", "signature", [(0, FAT_BOOT), (510, b"\x55\xaa")]),
        ("ISO 9660", "signature", [(32769, b"CD001")]),
        ("UDF", "signature", [(32769 + 2048, b"NSR03")]),
        ("ZFS", "signature", [(128 * 1024 + 3072, b"\x0c\xb1\xba\x00\x00\x00\x00\x00")]),
        ("ZFS", "signature", [(SIZE - 128 * 1024, b"\x00\x00\x00\x00\x00\xba\xb1\x0c")]),
        ("bcache", "signature", [(4096 + 24, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))]),
        ("f2fs", "signature", [(1024, b"\x10\x20\xf5\xf2")]),
        ("GPT", "partitioned", [(512, b"EFI PART")]),
        ("GPT", "partitioned", [(4096, b"EFI PART")]),
        ("backup GPT", "partitioned", [(SIZE - 512, b"EFI PART")]),
        ("backup GPT", "partitioned", [(SIZE - 4096, b"EFI PART")]),
        ("MBR", "partitioned", [(450, b"\x83"), (458, b"\x01"), (510, b"\x55\xaa")]),
    ],
)
def test_each_is_found_where_it_lies(name, reason, parts):
    found = list(signatures(edges_with(*parts)))
    assert [(each.name, each.reason) for each in found] == [(name, reason)]
    start = min(offset for offset, _ in parts)
    assert start <= found[0].offset < start + 512


@pytest.mark.parametrize("blank", [b"\x00", b"\xff"])
def test_a_blank_device_has_none(blank):
    assert not list(signatures(Edges(SIZE, blank * REACH, blank * REACH)))


def test_two_bytes_alone_are_no_ext_and_no_partition_table():
    assert not list(signatures(edges_with((1080, b"\x53\xef"), (1048, b"\xff" * 4))))
    assert not list(signatures(edges_with((510, b"\x55\xaa"))))


@given(size=st.integers(0, 3 * REACH), seed=st.binary(max_size=600), at=st.integers(0, REACH))
def test_any_bytes_and_any_size_come_to_an_end(size, seed, at):
    reach = min(size, REACH)
    head = bytearray(reach)
    head[at : at + len(seed)] = seed
    del head[reach:]
    for found in signatures(Edges(size, bytes(head), bytes(head))):
        assert 0 <= found.offset < size
