"""Signatures of file systems, containers and partition tables, found in the first and last MiB of a device.

A table and a few rules of our own, since a machine may lack `blkid`; where it is there, it is asked as well
(:mod:`siltstone_plugins._blkid`), and knows more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB: Final = 1024

#: bytes at the start and at the end of a device that can bear a signature
REACH: Final = 1024 * KIB

# (name, offsets, magic). Sources: the on-disk format descriptions of each, and magic(5).
_AT_START: Final[tuple[tuple[str, tuple[int, ...], bytes], ...]] = (
    ("xfs", (0,), b"XFSB"),
    ("btrfs", (64 * KIB + 64,), b"_BHRfS_M"),
    ("LUKS", (0,), b"LUKS\xba\xbe"),
    ("LUKS", tuple(16 * KIB << shift for shift in range(6)), b"SKUL\xba\xbe"),
    ("LVM2", tuple(sector * 512 + 24 for sector in range(4)), b"LVM2 001"),
    ("md", (0, 4 * KIB), b"\xfc\x4e\x2b\xa9"),
    ("swap", tuple(page * KIB - 10 for page in (4, 8, 16, 32, 64)), b"SWAPSPACE2"),
    ("swap", tuple(page * KIB - 10 for page in (4, 8, 16, 32, 64)), b"SWAP-SPACE"),
    ("hibernation image", tuple(page * KIB - 10 for page in (4, 8, 16, 32, 64)), b"S1SUSPEND"),
    ("NTFS", (3,), b"NTFS    "),
    ("exFAT", (3,), b"EXFAT   "),
    ("BitLocker", (3,), b"-FVE-FS-"),
    ("FAT", (54,), b"FAT12   "),
    ("FAT", (54,), b"FAT16   "),
    ("FAT", (82,), b"FAT32   "),
    ("ISO 9660", (32 * KIB + 1,), b"CD001"),
    ("UDF", tuple(32 * KIB + 1 + 2 * KIB * n for n in range(4)), b"NSR02"),
    ("UDF", tuple(32 * KIB + 1 + 2 * KIB * n for n in range(4)), b"NSR03"),
    ("bcache", (4 * KIB + 24,), bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    ("bcachefs", (4 * KIB + 24,), bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
    ("f2fs", (KIB,), b"\x10\x20\xf5\xf2"),
    ("erofs", (KIB,), b"\xe2\xe1\xf5\xe0"),
    ("squashfs", (0,), b"hsqs"),
    ("jfs", (32 * KIB,), b"JFS1"),
    ("reiserfs", (64 * KIB + 52,), b"ReIsEr"),
    ("reiser4", (64 * KIB,), b"ReIsEr4"),
    ("HFS+", (KIB,), b"H+\x00\x04"),
    ("HFSX", (KIB,), b"HX\x00\x05"),
    ("APFS", (32,), b"NXSB"),
    ("gfs2", (64 * KIB,), b"\x01\x16\x19\x70"),
    ("Ceph BlueStore", (0,), b"bluestore block device"),
    ("VDO", (0,), b"dmvdo001"),
    ("Stratis", (512 + 4,), b"!Stra0tis"),
)
_EXT_MAGIC: Final = b"\x53\xef"
_MD_MAGIC: Final = b"\xfc\x4e\x2b\xa9"
_GPT_MAGIC: Final = b"EFI PART"
_ZFS_MAGICS: Final = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
_ZFS_LABEL: Final = 256 * KIB


@dataclass(frozen=True)
class Signature:
    """What was found where.

    :param reason: "partitioned" or "signature", as in RefusedDeviceError
    :param offset: of its magic on the device [bytes]
    """

    name: str
    reason: str
    offset: int


@dataclass(frozen=True)
class Edges:
    """The first and last REACH bytes of a device of `size` bytes; they overlap where it is small."""

    size: int
    head: bytes
    tail: bytes

    def at(self, offset: int, length: int) -> bytes:
        """Return what is at an absolute offset, as far as it lies in head or tail."""
        if 0 <= offset < len(self.head):
            return self.head[offset : offset + length]
        start = offset - (self.size - len(self.tail))
        return self.tail[start : start + length] if start >= 0 else b""


def signatures(edges: Edges) -> Iterator[Signature]:
    """Yield every foreign signature in `edges`."""
    for name, offsets, magic in _AT_START:
        for offset in offsets:
            if edges.at(offset, len(magic)) == magic:
                yield Signature(name, "signature", offset)
    yield from _ext(edges)
    yield from _plain_fat(edges)
    yield from _md_at_end(edges)
    yield from _zfs(edges)
    yield from _gpt(edges)
    yield from _mbr(edges)


def _ext(edges: Edges) -> Iterator[Signature]:
    # Two bytes are too little to go by: the block size and the revision must make sense as well.
    superblock = edges.at(KIB, 100)
    if len(superblock) == 100 and superblock[56:58] == _EXT_MAGIC:
        block_shift, revision = struct.unpack_from("<24xI48xI", superblock)
        if block_shift <= 6 and revision <= 1:
            yield Signature("ext2/3/4", "signature", KIB + 56)


def _plain_fat(edges: Edges) -> Iterator[Signature]:
    """FAT without the name that newer tools write: a boot sector whose numbers are those of a FAT."""
    sector = edges.at(0, 512)
    if len(sector) == 512 and sector[510:] == b"\x55\xaa" and sector[0] in (0xEB, 0xE9):
        sector_size, per_cluster, reserved, tables = struct.unpack_from("<11xHBHB", sector)
        sizes = sector_size in (512, 1024, 2048, 4096) and per_cluster and not per_cluster & (per_cluster - 1)
        if sizes and reserved and tables in (1, 2) and sector[21] >= 0xF0:
            yield Signature("FAT", "signature", 0)


def _md_at_end(edges: Edges) -> Iterator[Signature]:
    # Superblock 1.0 lies at least 8 KiB before the end, 0.90 in the last whole 64 KiB but one.
    sectors = edges.size // 512
    for offset in ((sectors - 16) // 8 * 8 * 512, edges.size // (64 * KIB) * 64 * KIB - 64 * KIB):
        if offset >= 0 and edges.at(offset, 4) in (_MD_MAGIC, _MD_MAGIC[::-1]):
            yield Signature("md", "signature", offset)


def _zfs(edges: Edges) -> Iterator[Signature]:
    """Any uberblock in any of the four labels, two at each end."""
    end = edges.size // _ZFS_LABEL * _ZFS_LABEL
    for label in (0, _ZFS_LABEL, end - 2 * _ZFS_LABEL, end - _ZFS_LABEL):
        for offset in range(label + 128 * KIB, label + _ZFS_LABEL, KIB):
            if label >= 0 and edges.at(offset, 8) in _ZFS_MAGICS:
                yield Signature("ZFS", "signature", offset)
                break


def _gpt(edges: Edges) -> Iterator[Signature]:
    for sector in (512, 4096):
        if edges.at(sector, 8) == _GPT_MAGIC:
            yield Signature("GPT", "partitioned", sector)
        if edges.size > sector and edges.at(edges.size - sector, 8) == _GPT_MAGIC:
            yield Signature("backup GPT", "partitioned", edges.size - sector)


def _mbr(edges: Edges) -> Iterator[Signature]:
    sector = edges.at(0, 512)
    if len(sector) == 512 and sector[510:] == b"\x55\xaa":
        entries = [sector[at : at + 16] for at in range(446, 510, 16)]
        plausible = all(entry[0] in (0, 0x80) for entry in entries)
        if plausible and any(entry[4] and any(entry[12:]) for entry in entries):
            yield Signature("MBR", "partitioned", 510)
