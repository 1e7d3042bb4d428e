"""The pages of a hash store said again from docs/format.md, slowly, in plain Python."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE, BODY = 4096, 4064
WORD = (1 << 64) - 1


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & WORD


def siphash13(secret: bytes, kind: int, key: bytes) -> int:
    """SipHash-1-3 (Aumasson and Bernstein 2012) of a key, its type combined with the second word of the secret."""
    k0, k1 = struct.unpack("<QQ", secret)
    k1 ^= kind
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def mix() -> None:
        v[0] = (v[0] + v[1]) & WORD
        v[1] = _rotate(v[1], 13) ^ v[0]
        v[0] = _rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & WORD
        v[3] = _rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & WORD
        v[3] = _rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & WORD
        v[1] = _rotate(v[1], 17) ^ v[2]
        v[2] = _rotate(v[2], 32)

    whole = key + bytes(-(len(key) + 1) % 8) + bytes([len(key) & 255])
    for (word,) in struct.iter_unpack("<Q", whole):
        v[3] ^= word
        mix()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        mix()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def sealed(
    body: bytes,
    *,
    seed: int,
    generation: int,
    index: int,
    part: int,
    used: int,
    count: int = 0,
    size: int = 0,
) -> bytes:
    """A whole page: 4064 bytes of body and their seal."""
    assert len(body) == BODY
    fields = struct.pack(">IIHHIH6x", generation & 0xFFFFFFFF, index, used, count, part, size)
    return body + fields + xxhash.xxh3_64_intdigest(body + fields, seed=seed).to_bytes(8, "big")


def record_pages(entries: Iterable[tuple[int, bytes]]) -> list[tuple[int, list[tuple[int, bytes]]]]:
    """(hash, entry) pairs in order cut into pages, each with its first hash."""
    pages: list[tuple[int, list[tuple[int, bytes]]]] = []
    left = -1
    for hashed, entry in entries:
        if len(entry) + 1 > left:
            pages.append((hashed, []))
            left = BODY
        left -= len(entry) + 1
        pages[-1][1].append((hashed, entry))
    return pages


def record_body(entries: list[tuple[int, bytes]]) -> bytes:
    """Entries from the front, their tags from the back, 0xFF between."""
    tags = bytes(hashed & 255 for hashed, _entry in reversed(entries))
    packed = b"".join(entry for _hash, entry in entries)
    return packed + b"\xff" * (BODY - len(packed) - len(tags)) + tags


def mixed(word: int, seed: int) -> int:
    """A hash as the filter uses it."""
    word ^= seed
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & WORD
    word = (word ^ word >> 29) * 0xC4CEB9FE1A85EC53 & WORD
    return word ^ word >> 32


def cells_of(hashed: int, seed: int, bits: int, segments: int) -> tuple[list[int], int]:
    """The four cells of a hash, and its fingerprint."""
    word = mixed(hashed, seed)
    spread = word * 0x9E3779B97F4A7C15 & WORD
    first = word * (segments << bits) >> 64
    cells = [first]
    for number, shift in enumerate((46, 28, 10), start=1):
        cells.append(first + (number << bits) ^ (spread >> shift & (1 << bits) - 1))
    return cells, (word ^ word >> 32) & 255


def in_filter(hashed: int, cells: bytes, seed: int, bits: int, segments: int) -> bool:
    """Whether the filter says that a hash may be there."""
    places, fingerprint = cells_of(hashed, seed, bits, segments)
    return cells[places[0]] ^ cells[places[1]] ^ cells[places[2]] ^ cells[places[3]] == fingerprint
