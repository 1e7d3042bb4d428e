"""A superblock whose checksum is right and whose payload is malice: one of our errors, soon, in little memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from superblocks import MIB, SAMPLE, sealed_slot, superblocks

from siltstone.errors import ForeignVolumeError, SiltstoneError, VersionError
from siltstone.format.superblock_slot import decode_slot, encode_slot

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock

PAYLOAD_MAX = 524_256


def fields_of(superblock: Superblock = SAMPLE) -> dict[str, Any]:
    """The payload as a map."""
    slot = decode_slot(encode_slot(superblock))
    assert slot is not None
    found: dict[str, Any] = msgpack.unpackb(slot.data[32:], strict_map_key=False)
    return found


def decode(fields: Any) -> Superblock:
    slot = decode_slot(sealed_slot(msgpack.packb(fields)))
    assert slot is not None
    return slot.superblock


def test_what_the_tests_below_spoil_is_good():
    assert decode(fields_of()) == SAMPLE


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=20),
    st.sampled_from(
        [0, 1, 2**32, 2**48, 2**63, 2**64 - 1, b"\xff" * 16, "journal", "free", "active", "closed"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.integers(0, 255), st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=8,
)


def decodes_or_says_why(data: bytes) -> Superblock | None:
    """Anything but a result or these two errors fails the test by itself."""
    try:
        slot = decode_slot(data, "file:hostile")
    except (ForeignVolumeError, VersionError) as error:
        assert "file:hostile" in str(error)
        assert len(str(error)) < 2000
        return None
    return None if slot is None else slot.superblock


@given(VALUES)
def test_any_value_is_refused(value):
    assert decodes_or_says_why(sealed_slot(msgpack.packb(value))) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(payload):
    assert decodes_or_says_why(sealed_slot(payload)) is None


@given(st.binary(max_size=300))
def test_any_bytes_without_a_checksum_are_no_slot(data):
    assert decodes_or_says_why(data) is None
    assert decodes_or_says_why(b"SILTSTN1" + data) is None


@settings(max_examples=6 * settings.default.max_examples)
@given(superblock=superblocks(), data=st.data())
def test_one_wrong_value_anywhere_never_makes_another_error(superblock, data):
    fields = fields_of(superblock)
    spoil(fields, data.draw)
    found = decodes_or_says_why(sealed_slot(msgpack.packb(fields), sequence=superblock.sequence))
    if found is not None:  # the value happened to be allowed; then it is written as it was read
        assert decode_slot(encode_slot(found)).superblock == found


def spoil(fields: dict[str, Any], draw: Any) -> None:
    """Put one wrong value somewhere into the payload, or leave one out."""
    target: Any = fields
    while True:
        places = list(target) if isinstance(target, dict) else list(range(len(target)))
        if not places:
            return
        place = draw(st.sampled_from(places))
        deeper = target[place]
        if isinstance(deeper, dict | list) and draw(st.booleans()):
            target = deeper
            continue
        if isinstance(target, dict) and draw(st.integers(0, 5)) == 0:
            del target[place]
        else:
            target[place] = draw(VALUES)
        return


def with_extent(**changed: Any) -> dict[str, Any]:
    fields = fields_of()
    fields["extents"][0].update(changed)
    return fields


def with_part(part: Any, state: str = "closed") -> dict[str, Any]:
    return with_extent(kind="hash_store", state=state, end=None, part=part)


def with_field(**changed: Any) -> dict[str, Any]:
    return {**fields_of(), **changed}


def dump(offset: int, length: int) -> bytes:
    return (offset // 512).to_bytes(8, "big") + length.to_bytes(8, "big")


NESTED = [None]
for _ in range(600):
    NESTED = [NESTED]

REFUSED = {
    "no map": [1, 2],
    "empty": {},
    "cluster size": with_field(cluster_size=512),
    "erase block too small": with_field(erase_block=4096),
    "erase block no power of two": with_field(erase_block=3 * 65536),
    "erase block larger than half a journal": with_field(erase_block=64 * MIB, extents=[]),
    "uuid short": with_field(uuid=b"short"),
    "uuid text": with_field(uuid="0123456789abcdef"),
    "uuid nested": with_field(uuid=NESTED),
    "uuid huge": with_field(uuid=bytes(400_000)),
    "clean an integer": with_field(clean=1),
    "shards none": with_field(shards=0),
    "shards many": with_field(shards=1025),
    "shards true": with_field(shards=True),
    "shards float": with_field(shards=2.0),
    "epoch negative": with_field(epoch=-1),
    "epoch that cannot rise": with_field(epoch=2**63),
    "order that cannot rise": with_extent(order=2**63),
    "created text": with_field(created="now"),
    "extent ids all used": with_field(next_extent=2**32),
    "entry types a list": with_field(entry_types=[1]),
    "entry types nothing": with_field(entry_types=None),
    "entry type NONE": with_field(entry_types={255: ["a", 1, "b"]}),
    "entry type by name": with_field(entry_types={"hash_info": ["a", 1, "b"]}),
    "entry type short": with_field(entry_types={2: ["a", 1]}),
    "entry type a number": with_field(entry_types={2: 5}),
    "entry type with a nested name": with_field(entry_types={2: [NESTED, 1, "b"]}),
    "entry type with a version of text": with_field(entry_types={2: ["a", "1", "b"]}),
    "extents a map": with_field(extents={1: 2}),
    "extents nothing": with_field(extents=None),
    "extents of numbers": with_field(extents=[1]),
    "extents of texts": with_field(extents=["id"]),
    "extents of lists": with_field(extents=[[1]]),
    "extent id not handed out yet": with_extent(id=4),
    "extent id twice": with_extent(id=3),
    "kind": with_extent(kind="hash_store"),
    "kind unhashable": with_extent(kind=[]),
    "checkpoint with an end": with_extent(kind="checkpoint"),
    "checkpoint that is active": with_extent(kind="checkpoint", state="active", end=None),
    "checkpoint that is free": with_extent(kind="checkpoint", state="free", end=None),
    "two checkpoints of a shard": with_field(
        extents=[
            {**fields_of()["extents"][0], "kind": "checkpoint", "state": "closed", "end": None, "shard": 0},
            {**fields_of()["extents"][1], "kind": "checkpoint", "state": "closed", "end": None, "shard": 0},
        ]
    ),
    "hash store without a part": with_extent(kind="hash_store", end=None),
    "journal with a part": with_extent(part=[0, 1, 0]),
    "hash store to be filled with a part": with_part([0, 1, 0], state="empty"),
    "part nothing": with_part(None),
    "part of text": with_part("abc"),
    "part a map": with_part({0: 0, 1: 1, 2: 0}),
    "part short": with_part([0, 1]),
    "part nested": with_part([0, NESTED, 0]),
    "part that begins at True": with_part([True, 1, 0]),
    "part that begins at 1.0": with_part([1.0, 1, 0]),
    "part negative": with_part([-1, 1, 0]),
    "part of nothing": with_part([0, 0, 0]),
    "part with more entries than bytes": with_part([0, 131073, 0]),
    "part with more deletions than entries": with_part([0, 5, 6]),
    "two parts that begin at one hash": with_field(
        extents=[
            {**one, "kind": "hash_store", "state": "closed", "end": None, "shard": 0, "part": [7, 5, 0]}
            for one in fields_of()["extents"]
        ]
    ),
    "state": with_extent(state="open"),
    "format": with_extent(format="plain"),
    "shard beyond": with_extent(shard=2),
    "generation of the future": with_extent(generation=10),
    "order negative": with_extent(order=-1),
    "dump short": with_extent(dump=bytes(15)),
    "dump text": with_extent(dump="0" * 16),
    "extent over the superblock": with_extent(dump=dump(0, 131072)),
    "extent of nothing": with_extent(dump=dump(MIB, 0)),
    "extent not aligned": with_extent(dump=dump(MIB + 4096, 65536)),
    "extent of half an erase block": with_extent(dump=dump(MIB, 65536 + 512)),
    "extents overlap": with_extent(dump=dump(MIB, 131072 + 65536)),
    "extent beyond all media": with_extent(dump=dump(2**63, 131072)),
    "journal larger than a journal can be": with_extent(dump=dump(8 * MIB, 64 * MIB + 65536)),
    "closed without an end": with_extent(end=None),
    "end beyond the extent": with_extent(end=[32, 100, None, 7]),
    "end behind the entries of a cluster": with_extent(end=[3, 4063, None, 7]),
    "end in a third slot": with_extent(end=[3, 100, 2, 7]),
    "end in slot True": with_extent(end=[3, 100, True, 7]),
    "end in slot 1.0": with_extent(end=[3, 100, 1.0, 7]),
    "end with a sequence of 64 bits": with_extent(end=[3, 100, None, 2**48]),
    "end negative": with_extent(end=[-1, 100, None, 7]),
    "end of text": with_extent(end="abcd"),
    "end a map": with_extent(end={3: 0, 100: 0, 0: 0, 7: 0}),
    "end nested": with_extent(end=[NESTED, 1, 0, 1]),
    "end short": with_extent(end=[3, 100]),
    "two active journals of a shard": with_extent(state="active", shard=1),
    "two journals in one place of a replay": with_extent(shard=1),
    "a free extent that is active": with_extent(kind="free", state="active"),
    "a journal that is free": with_extent(state="free"),
    "kept extent larger than a journal can be": with_extent(
        dump=dump(8 * MIB, 64 * MIB + 65536), kind="reserve", state="free"
    ),
    "a kept extent that is closed": with_extent(kind="reserve"),
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_what_breaks_a_rule_is_refused(fields):
    with pytest.raises(ForeignVolumeError) as caught:
        decode(fields)
    assert len(str(caught.value)) < 2000


def test_a_sequence_that_cannot_rise_is_refused():
    with pytest.raises(ForeignVolumeError, match=str(2**63)):
        decode_slot(sealed_slot(msgpack.packb(fields_of()), sequence=2**63))


#: as far as the machine is concerned: bytes that claim more than they hold
GREEDY = {
    "lists in lists, each claiming half a million": (b"\xdd" + (PAYLOAD_MAX - 9).to_bytes(4, "big"))
    * (PAYLOAD_MAX // 5),
    "as many lists in lists as there is room for": b"\x91" * PAYLOAD_MAX,
    "as many maps in maps as there is room for": b"\x81\x01" * (PAYLOAD_MAX // 2),
    "a list of empty maps": b"\xdd" + (PAYLOAD_MAX - 5).to_bytes(4, "big") + b"\x80" * (PAYLOAD_MAX - 5),
    "a map of half a million": b"\xdf"
    + (PAYLOAD_MAX // 2).to_bytes(4, "big")
    + b"\x01\x02" * (PAYLOAD_MAX // 2 - 5),
    "a text that is not there": b"\xdb\xff\xff\xff\xff",
    "an extension": b"\xc7\xff\x05" + bytes(255),
    "a timestamp": b"\xd6\xff" + bytes(4),
    "a list as the key of a map": b"\x81\x91\x01\x01",
    "text that is none": b"\xa2\xff\xff",
    "nothing": b"",
    "two values": b"\x80\x80",
}


@pytest.mark.parametrize("payload", GREEDY.values(), ids=GREEDY)
def test_a_greedy_payload_costs_little(payload):
    assert len(payload) <= PAYLOAD_MAX
    data = sealed_slot(payload)
    tracemalloc.start()
    try:
        start = time.process_time()
        assert decodes_or_says_why(data) is None
        spent = time.process_time() - start
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Not bars: a hundred times what it takes here.
    assert peak < 200 * PAYLOAD_MAX
    assert spent < 10


def test_what_is_refused_is_refused_before_anything_else_is_looked_at():
    # The most that a payload can hold, and the last extent overlaps the first.
    extents = [
        {**fields_of()["extents"][0], "id": number, "dump": dump(MIB + number * 131072, 131072)}
        for number in range(1, 3500)
    ]
    extents.append({**extents[0], "id": 3500})
    payload = msgpack.packb(with_field(next_extent=4000, extents=extents))
    assert len(payload) <= PAYLOAD_MAX
    with pytest.raises(SiltstoneError, match="overlaps"):
        decode_slot(sealed_slot(payload))
