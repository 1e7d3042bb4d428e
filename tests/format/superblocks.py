"""Superblocks for tests: one to look at, any that the format allows, and slots that hold anything."""

from __future__ import annotations

import struct
from dataclasses import replace

import xxhash
from hypothesis import strategies as st

from siltstone.format.constants import JOURNAL_SIZE_MAX
from siltstone.format.seal import End
from siltstone.format.superblock import (
    ACTIVE,
    CLOSED,
    EMPTY,
    KIND_CHECKPOINT,
    KIND_FREE,
    KIND_HASH_STORE,
    KIND_JOURNAL,
    KIND_RESERVE,
    SHARDS_MAX,
    Extent,
    Part,
    RecordedType,
    Superblock,
    first_extent_offset,
)

COUNT_MAX = 2**63 - 1
MIB = 1 << 20

SAMPLE = Superblock(
    uuid=bytes(range(16)),
    erase_block=65536,
    created=1_750_000_000,
    shards=2,
    sequence=9,
    epoch=3,
    clean=False,
    next_extent=4,
    entry_types={2: RecordedType("hash_info", 1, "siltstone")},
    extents=(
        Extent(1, MIB, 131072, KIND_JOURNAL, 0, 1, CLOSED, generation=2, end=End(3, 100, None, 7)),
        Extent(3, MIB + 131072, 131072, KIND_JOURNAL, 1, 1, ACTIVE, generation=8),
    ),
)


def sealed_slot(payload: bytes, *, version: int = 1, sequence: int = 9) -> bytes:
    """A slot whose checksum is right, whatever is in it."""
    head = struct.pack(">8sIIQ", b"SILTSTN1", version, len(payload), sequence)
    return head + struct.pack(">Q", xxhash.xxh3_64_intdigest(head + payload)) + payload


NAMES = st.text(max_size=20)


@st.composite
def ends(draw, length: int) -> End:
    cluster = draw(st.integers(0, length // 4096 - 3))
    slot, sequence = draw(st.sampled_from([None, 0, 1])), draw(st.integers(0, 2**48 - 1))
    return End(cluster, draw(st.integers(0, 4062)), slot, sequence)


@st.composite
def parts(draw, length: int, firsts: set[int]) -> Part:
    """What counts of a hash store, from a hash that is not in `firsts` yet."""
    first = draw(st.integers(0, 2**64 - 1).filter(lambda hashed: hashed not in firsts))
    firsts.add(first)
    entries = draw(st.integers(1, length))
    return Part(first, entries, draw(st.integers(0, entries)))


@st.composite
def superblocks(draw) -> Superblock:
    erase_block = 1 << draw(st.integers(16, 25))
    shards = draw(st.integers(1, SHARDS_MAX))
    sequence = draw(st.integers(1, COUNT_MAX))
    next_extent = draw(st.integers(20, 2**32 - 1))
    ids = draw(st.lists(st.integers(0, next_extent - 1), unique=True, max_size=8))
    offset = first_extent_offset(erase_block)
    extents = []
    active: set[int] = set()
    checkpoints: set[int] = set()
    orders = iter(
        draw(st.lists(st.integers(0, COUNT_MAX), unique=True, min_size=len(ids), max_size=len(ids)))
    )
    firsts: set[int] = set()
    for number in ids:
        offset += erase_block * draw(st.integers(0, 3))
        length = erase_block * draw(st.integers(1, JOURNAL_SIZE_MAX // erase_block))
        kind = draw(
            st.sampled_from([KIND_JOURNAL, KIND_RESERVE, KIND_FREE, KIND_CHECKPOINT, KIND_HASH_STORE])
        )
        shard = draw(st.integers(0, shards - 1))
        extent = Extent(number, offset, length, kind, shard)
        if kind == KIND_CHECKPOINT:
            state = EMPTY if shard in checkpoints else draw(st.sampled_from([EMPTY, CLOSED]))
            if state == CLOSED:
                checkpoints.add(shard)
            generation = draw(st.integers(0, sequence))
            # They may be larger than journals.
            length *= draw(st.sampled_from([1, 1, 50]))
            extent = Extent(number, offset, length, kind, shard, state=state, generation=generation)
        if kind == KIND_HASH_STORE:
            state = draw(st.sampled_from([EMPTY, CLOSED]))
            part = draw(parts(length, firsts)) if state == CLOSED else None
            # Several parts of one hash store, and several hash stores.
            order, generation = draw(st.integers(0, 2)), draw(st.integers(0, sequence))
            extent = replace(extent, state=state, order=order, generation=generation, part=part)
        if kind == KIND_JOURNAL:
            state = draw(st.sampled_from([EMPTY, CLOSED] if shard in active else [EMPTY, CLOSED, ACTIVE]))
            if state == ACTIVE:
                active.add(shard)
            with_end = state == CLOSED or draw(st.booleans())
            end = draw(ends(length)) if with_end else None
            generation = draw(st.integers(0, sequence))
            extent = replace(extent, state=state, order=next(orders), generation=generation, end=end)
        extents.append(extent)
        offset += length
    types = st.builds(RecordedType, NAMES, st.integers(0, 2**16 - 1), NAMES)
    return Superblock(
        uuid=draw(st.binary(min_size=16, max_size=16)),
        erase_block=erase_block,
        created=draw(st.integers(0, COUNT_MAX)),
        shards=shards,
        sequence=sequence,
        epoch=draw(st.integers(0, COUNT_MAX)),
        clean=draw(st.booleans()),
        next_extent=next_extent,
        entry_types=draw(st.dictionaries(st.integers(1, 254), types, max_size=5)),
        extents=tuple(extents),
    )
