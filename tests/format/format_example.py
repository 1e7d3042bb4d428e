"""The journal and the superblock that docs/format.md shows in hex, made by the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from cluster_model import CLUSTER, entry

from siltstone.format.superblock import (
    ACTIVE,
    KIND_JOURNAL,
    KIND_RESERVE,
    Extent,
    RecordedType,
    Superblock,
)
from siltstone.format.superblock_slot import encode_slot
from siltstone.journal.sealed import SealedJournal

if TYPE_CHECKING:
    from siltstone.format.seal import End

UUID = bytes(range(16))
EXTENT = Extent(1, 1 << 20, 131072, KIND_JOURNAL, shard=0, order=1, state=ACTIVE, generation=2)
HASH, DELETE = 0x02, 0x04


def hash_entry(fill: int, physical: int, logical: int) -> bytes:
    return entry(HASH, bytes([fill]) * 32 + physical.to_bytes(8, "big") + logical.to_bytes(8, "big"))


class Medium:
    """The bytes of one extent, which start at its offset."""

    url = "memory:example"
    read_only = False

    def __init__(self) -> None:
        self.data = bytearray(EXTENT.length)

    def write(self, offset: int, data: bytes) -> None:
        piece = bytes(data)
        at = offset - EXTENT.offset
        self.data[at : at + len(piece)] = piece

    def flush(self) -> None: ...


def journal() -> tuple[bytes, End]:
    """One batch of a record; a second of another record and the deletion of the first; each flushed. Its end."""
    medium = Medium()
    written = SealedJournal(medium, UUID, EXTENT, medium.flush)
    written.prepare()
    batches = (
        hash_entry(0x11, 8, 64),
        hash_entry(0x22, 16, 128) + entry(DELETE, bytes([HASH]) + b"\x11" * 32),
    )
    for batch in batches:
        written.append_stream(np.frombuffer(batch, np.uint8))
        assert written.begin_flush()
        written.end_flush()
    return bytes(medium.data), written.end


def filled(size: int) -> bytes:
    """A journal whose log cluster 0 was closed with `size` bytes of entries in it, by one batch."""
    medium = Medium()
    written = SealedJournal(medium, UUID, EXTENT, medium.flush)
    whole, rest = divmod(size, 50)
    batch = hash_entry(0x33, 0, 0) * whole + (entry(0xF0, bytes(rest - 2)) if rest else b"")
    written.append_stream(np.frombuffer(batch + entry(0xF0, bytes(252)) * 2, np.uint8))
    assert written.position.cluster == 1
    return bytes(medium.data)


def superblock_slot() -> bytes:
    """The superblock of the volume that the journal is in, after a clean close."""
    _image, end = journal()
    return encode_slot(
        Superblock(
            uuid=UUID,
            erase_block=65536,
            created=1_750_000_000,
            shards=1,
            sequence=5,
            epoch=1,
            clean=True,
            next_extent=3,
            entry_types={HASH: RecordedType("hash_info", 1, "siltstone")},
            extents=(replace(EXTENT, end=end), Extent(2, (1 << 20) + 131072, 131072, KIND_RESERVE)),
        )
    )


def hex_dump(data: bytes, first: int = 0) -> str:
    """As `hexdump -C` prints it, from byte `first` on: runs of equal lines are one star."""
    lines, previous, starred = [], None, False
    for at in range(first, len(data), 16):
        row = data[at : at + 16]
        if row == previous:
            if not starred:
                lines.append("*")
            starred = True
            continue
        previous, starred = row, False
        shown = row.hex(" ")
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {shown[:23]}  {shown[24:]:23}  |{text}|")
    return "\n".join([*lines, f"{len(data):08x}"])


def parse_hex_dump(text: str) -> tuple[int, bytes]:
    """(first byte, bytes) that :func:`hex_dump` printed."""
    data, first, star, row = bytearray(), None, False, b""
    for line in text.strip().splitlines():
        if line == "*":
            star = True
            continue
        at, *_rest = line.split()
        position = int(at, 16)
        first = position if first is None else first
        if star:
            data += row * ((position - first - len(data)) // 16)
            star = False
        assert first + len(data) == position, line
        row = bytes.fromhex(line[8:58]) if len(line) > 8 else b""
        data += row
    assert first is not None
    return first, bytes(data)


if __name__ == "__main__":
    image, end = journal()
    print(end)
    print("---- slot 0\n" + hex_dump(image[:CLUSTER]))
    print("---- slot 1\n" + hex_dump(image[CLUSTER : 2 * CLUSTER]))
    for size in (4050, 3812):
        print(
            f"---- closed at {size}\n"
            + hex_dump(filled(size)[2 * CLUSTER : 3 * CLUSTER], size // 16 * 16 - 16)
        )
    print("---- superblock\n" + hex_dump(superblock_slot()))
