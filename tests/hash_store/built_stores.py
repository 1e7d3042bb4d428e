"""Hash stores in memory, and what tests need to make and break them."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from hypothesis import strategies as st

from siltstone.errors import DamageError, VersionError
from siltstone.format.seal import journal_key, journal_seed
from siltstone.hash_store.builder import HashStoreBuilder
from siltstone.hash_store.extent import HashStoreHeader, plan
from siltstone.hash_store.merging import Merging
from siltstone.hash_store.sorting import sort_entries
from siltstone.hash_store.view import HashStoreView
from siltstone.index.types import KeyTypes

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator

PAGE, BODY = 4096, 4064
VOLUME_OFFSET = 1 << 20
UUID, EXTENT, GENERATION = bytes(range(100, 116)), 5, (3 << 32) + 17
KEY = journal_key(UUID, EXTENT, GENERATION)
SEED = journal_seed(UUID, EXTENT, GENERATION)
SECRET = bytes(range(16))

HASH, SHORT, VARYING, ONE, OTHER, KEYLESS, DELETE = 0x02, 0x10, 0x20, 0x11, 0x12, 0x30, 0x04
#: where each type has its key: at the start, at the end of a short payload, with any payload behind it
KEYS = {HASH: (0, 32), SHORT: (3, 5), VARYING: (1, 12), ONE: (0, 8), OTHER: (0, 8)}
TYPES = KeyTypes(KEYS)

#: pairs of (type, key) whose hashes under SECRET are one and the same, found by a search of some 2^32 keys
COLLISIONS = [
    tuple((kind, struct.pack("<Q", word)) for kind, word in pair)
    for pair in (
        ((OTHER, 0xE18CE16558D1C774), (ONE, 0xA9FDE25D8B6BEEBD)),
        ((ONE, 0x023799DC5A56ED9F), (ONE, 0xE6B391052607A367)),
        ((OTHER, 0x9905E09871CAE146), (OTHER, 0x15A6D2F26E383D2A)),
        ((ONE, 0xE250FF91019BE329), (ONE, 0xE02F1EE02167CB7F)),
    )
]

Key = tuple[int, bytes]


def entry(kind: int, payload: bytes) -> bytes:
    return bytes([len(payload) + 2, kind]) + payload


def put(kind: int, key: bytes, filler: bytes = b"") -> bytes:
    """An entry with this key, `filler` behind it."""
    return entry(kind, b"\x77" * KEYS[kind][0] + key + filler)


def deletion(kind: int, key: bytes) -> bytes:
    return entry(DELETE, bytes([kind]) + key)


def key_of(one: bytes) -> Key:
    if one[1] == DELETE:
        return one[2], one[3:]
    at, size = KEYS[one[1]]
    return one[1], one[2 + at : 2 + at + size]


def split(packed: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(packed):
        yield packed[at : at + packed[at]]
        at += packed[at]


def entries_of(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """Puts and deletions of few keys of two types, and of keys whose hashes are one and the same."""
    return st.one_of(
        st.builds(lambda n, f: put(SHORT, n.to_bytes(5, "big"), f), numbers, st.binary(max_size=20)),
        st.builds(lambda n, f: put(VARYING, n.to_bytes(12, "big"), f), numbers, st.binary(max_size=200)),
        st.builds(lambda n: deletion(SHORT, n.to_bytes(5, "big")), numbers),
        st.builds(
            lambda pair, which, filler: put(*COLLISIONS[pair][which], filler),
            st.integers(0, len(COLLISIONS) - 1),
            st.integers(0, 1),
            st.binary(max_size=5),
        ),
        st.builds(
            lambda pair, which: deletion(*COLLISIONS[pair][which]), st.integers(0, 3), st.integers(0, 1)
        ),
    )


def hash_infos(count: int, seed: int = 1) -> list[bytes]:
    """Entries of 50 bytes with random keys."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, 48), np.uint8)
    return [entry(HASH, row.tobytes()) for row in rows]


def in_order(entries: Iterable[bytes]) -> bytes:
    """The newest of each key, in the order of a hash store."""
    return sort_entries(TYPES, SECRET, [b"".join(entries)]).tobytes()


def build_packed(
    packed: bytes, *, chunks: int = 1, room: int | None = None
) -> tuple[bytearray, HashStoreHeader]:
    """An extent with a hash store of entries in ascending order, as large as `plan` or `room` [clusters] says."""
    entries = list(split(packed))
    largest = max(map(len, entries), default=2)
    clusters = plan(len(entries), len(packed), largest) if room is None else room
    extent = bytearray(b"\xaa" * (clusters * PAGE))
    written: set[int] = set()

    def write(offset: int, data: memoryview) -> None:
        assert offset % PAGE == len(data) % PAGE == 0
        assert offset + len(data) <= len(extent)
        pages = set(range(offset // PAGE, (offset + len(data)) // PAGE))
        assert not pages & written
        assert not written or 0 not in written, "the header comes last"
        written.update(pages)
        extent[offset : offset + len(data)] = data

    builder = HashStoreBuilder(
        KEY, GENERATION, TYPES, SECRET, write, entries_max=len(entries), clusters=clusters
    )
    for part in np.array_split(np.arange(len(entries)), chunks):
        builder.add(b"".join(entries[i] for i in part))
    header = builder.finish()
    assert written == set(range(header.clusters))
    return extent, header


def build(entries: Iterable[bytes]) -> bytearray:
    return build_packed(in_order(entries))[0]


def view_of(extent: bytes | bytearray) -> HashStoreView:
    return HashStoreView(extent, KEY, TYPES, SECRET, extent=EXTENT, offset=VOLUME_OFFSET)


def whole(view: HashStoreView) -> list[tuple[HashStoreView, int, int, int]]:
    """A hash store in one part, for a merge."""
    return [(view, 0, view.records, view.tombstones)]


def merged_of(views: Iterable[HashStoreView], *, drop_deletes: bool = False) -> bytes:
    """All that a merge of some hash stores yields, newest first."""
    merging = Merging([whole(view) if view.records else [] for view in views], drop_deletes=drop_deletes)
    return b"".join(chunk.tobytes() for chunk in merging.slice(1 << 40, 1 << 40))


def reseal(extent: bytearray, cluster: int) -> None:
    """Make the checksum of a page fit what is in it, as whoever knows the seed can."""
    at = cluster * PAGE
    checksum = xxhash.xxh3_64_intdigest(bytes(extent[at : at + 4088]), seed=SEED)
    extent[at + 4088 : at + PAGE] = checksum.to_bytes(8, "big")


def check_damage(damage: DamageError, cluster: int) -> None:
    assert (damage.journal, damage.cluster, damage.offset) == (
        EXTENT,
        cluster,
        VOLUME_OFFSET + cluster * PAGE,
    )
    assert f"cluster {cluster}," in str(damage)


def use(extent: bytes | bytearray | mmap.mmap) -> None:
    """Open, search, verify and merge, whatever comes of it."""
    with suppress(DamageError, VersionError):
        view = view_of(extent)
        for call in (
            lambda: view.find_many(HASH, np.random.default_rng(3).integers(0, 256, (300, 32), np.uint8)),
            lambda: view.find_many(HASH, np.array([list(one[2:34]) for one in hash_infos(300)], np.uint8)),
            lambda: [view.get(VARYING, number.to_bytes(12, "big")) for number in range(100)],
            view.verify,
            lambda: merged_of([view, view]),
            lambda: list(view.pages()),
        ):
            with suppress(DamageError):
                call()


def store_of_many_pages() -> bytearray:
    varying = [put(VARYING, number.to_bytes(12, "big"), bytes(number)) for number in range(100)]
    return build([*hash_infos(300), *varying, deletion(HASH, bytes(32))])
