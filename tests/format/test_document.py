"""docs/format.md is true: its examples byte for byte, its tables against the engine's numbers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import format_example
import msgpack
import numpy as np
import pytest
import rfc_reader
from cluster_model import CLUSTER, Model, entry, seed_of
from format_example import EXTENT, UUID

from siltstone.format import constants
from siltstone.format.seal import is_valid, journal_key, parse_seal
from siltstone.format.superblock import CLOSED, KIND_HASH_STORE, KINDS, SHARDS_MAX, STATES, Extent, Part
from siltstone.format.superblock_slot import decode_slot
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (.+?) -->\n```\n(.*?)```", PAGE, re.DOTALL))
KEY = journal_key(UUID, EXTENT.id, EXTENT.generation)


def rows(heading: str, *columns: str) -> list[list[str]]:
    """The cells of the table with these column names under a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    start = re.escape("| " + " | ".join(columns) + " |")
    table = re.search(rf"^{start}\n\|[ |-]+\|\n((?:\|.*\|\n)+)", section, re.MULTILINE)
    assert table, (heading, columns)
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table[1].splitlines()]


# ---- the examples


def test_every_example_is_shown():
    assert set(EXAMPLES) == {
        "tail slot 0",
        "log cluster closed at 4050",
        "log cluster closed at 3812",
        "superblock slot",
    }


def test_the_tail_slot_is_the_engines_byte_for_byte():
    first, shown = format_example.parse_hex_dump(EXAMPLES["tail slot 0"])
    image, _end = format_example.journal()
    assert (first, shown) == (0, image[:CLUSTER])
    assert is_valid(KEY, shown)


def test_the_tail_slot_is_what_the_page_says_it_is():
    # From the page alone: the slow model knows nothing of the engine.
    _first, shown = format_example.parse_hex_dump(EXAMPLES["tail slot 0"])
    model = Model(seed_of(UUID, 1, 2), generation=2)
    model.append([entry(2, b"\x11" * 32 + struct.pack(">QQ", 8, 64))])
    model.durable = (0, 50)
    model.append([entry(2, b"\x22" * 32 + struct.pack(">QQ", 16, 128)), entry(4, b"\x02" + b"\x11" * 32)])
    assert shown == model.tail_copy()


def test_the_bytes_that_the_page_explains_are_where_it_says():
    _first, shown = format_example.parse_hex_dump(EXAMPLES["tail slot 0"])
    explained = 0
    for at, cell, _what in rows("Worked example", "at", "bytes", "what"):
        if exact := re.fullmatch(r"`([0-9a-f ]+)`(?: x (\d+))?", cell):
            expected = bytes.fromhex(exact[1]) * int(exact[2] or 1)
            assert shown[int(at, 16) : int(at, 16) + len(expected)] == expected, at
            explained += 1
        elif last := re.fullmatch(r"`\.\. ([0-9a-f]{2})`", cell):
            assert shown[int(at, 16) : int(at, 16) + 8] == bytes(7) + bytes.fromhex(last[1]), at
            explained += 1
    assert explained == 13
    seed = re.search(r"with the seed ([0-9a-f ]+) \|", PAGE)
    assert seed
    assert bytes.fromhex(seed[1]) == KEY.seed.to_bytes(8, "big")


@pytest.mark.parametrize("size", [4050, 3812])
def test_the_ends_of_closed_clusters_are_the_engines(size):
    first, shown = format_example.parse_hex_dump(EXAMPLES[f"log cluster closed at {size}"])
    cluster = format_example.filled(size)[2 * CLUSTER : 3 * CLUSTER]
    assert shown == cluster[first:]
    assert first < size
    assert is_valid(KEY, cluster)
    assert (parse_seal(cluster).used, parse_seal(cluster).committed) == (size, 0)
    *_entries, (at, kind, payload) = rfc_reader.walk(cluster)
    assert (kind, at + 2 + len(payload)) == (0x01, CLUSTER)


def test_the_superblock_slot_is_the_engines():
    first, shown = format_example.parse_hex_dump(EXAMPLES["superblock slot"])
    assert (first, shown) == (0, format_example.superblock_slot())
    slot = decode_slot(shown)
    assert slot is not None
    assert slot.superblock.clean
    assert slot.superblock.extents[0].end == format_example.journal()[1]


def test_a_hex_dump_is_read_as_it_is_written():
    for data in (bytes(64), bytes(range(256)) * 3, b"\xff" * 4096 + b"x" * 16, bytes(16)):
        assert format_example.parse_hex_dump(format_example.hex_dump(data)) == (0, data)
    with pytest.raises(AssertionError):
        format_example.parse_hex_dump(
            format_example.hex_dump(bytes(range(64))).replace("00000020", "00000030")
        )


# ---- the tables


def layout(heading: str) -> list[tuple[int, int]]:
    """(at, size) of the fields in a byte table, where both are numbers."""
    fields = rows(heading, "field", "at", "size", "meaning", "why")
    return [(int(at), int(size)) for _field, at, size, *_rest in fields if size.isdigit()]


@pytest.mark.parametrize(
    ("heading", "size"),
    [("A superblock slot", constants.SUPERBLOCK_HEADER_SIZE), ("A cluster", constants.CLUSTER_SIZE)],
)
def test_byte_tables_have_neither_gap_nor_overlap(heading, size):
    at = 0
    for start, length in layout(heading):
        assert start == at
        at += length
    assert at == size


def test_the_fields_of_the_seal_are_the_engines():
    fields = layout("A cluster")[1:]
    made = bytearray(CLUSTER)
    for number, (at, size) in enumerate(fields, 1):
        made[at : at + size] = number.to_bytes(size, "big")
    seal = parse_seal(made)
    assert (seal.generation, seal.index, seal.used, seal.committed) == (1, 2, 3, 4)
    assert (seal.durable, seal.sequence, seal.checksum) == ((5, 6), 7, 8)


def test_the_volume_is_laid_out_as_the_page_says():
    table = [
        [int(number) for number in (at, size) if number.isdigit()]
        for at, size, _what in rows("The volume", "at", "size", "what")
    ]
    slots = [[offset, constants.SLOT_SIZE] for offset in constants.SLOT_OFFSETS]
    assert table == [*slots, [constants.EXTENTS_OFFSET]]


def test_the_payload_has_the_keys_of_the_page():
    slot = decode_slot(format_example.superblock_slot())
    assert slot is not None
    payload = msgpack.unpackb(slot.data[constants.SUPERBLOCK_HEADER_SIZE :], strict_map_key=False)
    heading = "A superblock slot"
    section = PAGE.split("and of each extent:")
    named = [
        re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        for part in (section[0], section[1].split("\n## ")[0])
    ]
    assert named[0] == list(payload)
    part = Extent(1, 1 << 20, 1 << 16, KIND_HASH_STORE, state=CLOSED, part=Part(0, 1, 0))
    assert sorted(named[1]) == sorted(part.to_map())
    assert sorted(named[1]) == sorted([*payload["extents"][0], "part"])
    values = {key: value for key, value, _meaning in rows(heading, "key", "value", "meaning")}
    assert values["`shards`"] == f"1 to {SHARDS_MAX}"
    described = {key: value for key, value, _meaning in (line[:3] for line in _extent_rows())}
    assert set(re.findall(r"`(\w+)`", described["`kind`"])) == set(KINDS)
    assert set(re.findall(r"`(\w+)`", described["`state`"])) == set(STATES)


def _extent_rows() -> list[list[str]]:
    table = PAGE.split("and of each extent:")[1].split("\n\n")[1]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def test_the_types_are_the_engines():
    named = {name: int(number, 16) for number, name, _ in rows("Entries", "type", "name", "payload") if name}
    assert named == {
        name: getattr(constants, f"TYPE_{name}") for name in ("END", "HASH", "SKIP", "DELETE", "NONE")
    }
    ranges = [number for number, *_ in rows("Entries", "type", "name", "payload") if "-" in number]
    assert ranges == [
        f"0x{constants.TYPE_DELETE + 1:02X}-0x{constants.TYPE_ENGINE_LAST:02X}",
        f"0x{constants.TYPE_PLUGIN_FIRST:02X}-0x{constants.TYPE_PLUGIN_LAST:02X}",
        f"0x{constants.TYPE_PRIVATE_FIRST:02X}-0x{constants.TYPE_PRIVATE_LAST:02X}",
    ]


# ---- the shard of a key, from the page alone


def siphash_1_3(words: tuple[int, int], message: bytes) -> int:
    """SipHash with one round a word and three at the end, after the paper."""
    mask = 2**64 - 1
    v0, v1 = words[0] ^ 0x736F6D6570736575, words[1] ^ 0x646F72616E646F6D
    v2, v3 = words[0] ^ 0x6C7967656E657261, words[1] ^ 0x7465646279746573

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & mask

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 = v0 + v1 & mask
            v2 = v2 + v3 & mask
            v1, v3 = turn(v1, 13) ^ v0, turn(v3, 16) ^ v2
            v0 = turn(v0, 32)
            v2 = v2 + v1 & mask
            v0 = v0 + v3 & mask
            v1, v3 = turn(v1, 17) ^ v2, turn(v3, 21) ^ v0
            v2 = turn(v2, 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for word in struct.unpack(f"<{len(padded) // 8}Q", padded):
        v3 ^= word
        rounds(1)
        v0 ^= word
    v2 ^= 0xFF
    rounds(3)
    return v0 ^ v1 ^ v2 ^ v3


@pytest.mark.parametrize(("kind", "size"), [(2, 32), (2, 7), (0x10, 8), (0xFE, 1), (0x55, 250)])
@pytest.mark.parametrize("shards", [1, 3, 8, 1000, 1024])
def test_the_shard_of_a_key_is_the_pages(kind, size, shards):
    keys = np.random.default_rng(size).integers(0, 256, (200, size), np.uint8)
    uuid = bytes(range(100, 116))
    first, second = struct.unpack("<QQ", uuid)
    expected = [(siphash_1_3((first, second ^ kind), key.tobytes()) >> 32) * shards >> 32 for key in keys]
    router = Router(KeyTypes({kind: (0, size)}), uuid, shards)
    assert router.shards_of(kind, keys).tolist() == expected
    assert [router.shard(kind, key) for key in keys[:20]] == expected[:20]
