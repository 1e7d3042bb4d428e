"""The compiled loops over clusters and streams: checksums, validity of a seal, cutting a stream into entries."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
import xxhash
from cluster_model import BODY, NO_BOUNDARY, body_of, entry, seal, seed_of
from hypothesis import example, given
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.format import constants, kernels
from siltstone.format.kernels import SealKey, locate_entries, measure_stream, seal_cluster, split_entries
from siltstone.format.seal import is_valid, journal_key, journal_seed, parse_seal

UUID = bytes(range(16))
SEED = seed_of(UUID, 7, 5)
KEY = SealKey(SEED)
U64 = st.integers(0, 2**64 - 1)


# ---- checksums and numbers


@given(length=st.integers(241, 9000), seed=U64, data=st.randoms(use_true_random=False))
@example(length=4088, seed=0, data=None)
@example(length=1024, seed=2**64 - 1, data=None)
@example(length=1025, seed=1, data=None)
def test_the_checksum_is_xxh3(length, seed, data):
    content = bytes(length) if data is None else data.randbytes(length)
    assert kernels.checksum(content, seed) == xxhash.xxh3_64_intdigest(content, seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 0x9E3779B97F4A7C15, 2**64 - 1])
def test_the_checksum_is_xxh3_at_every_length_round_its_blocks(seed):
    # Stripes have 64 bytes, blocks 1024: every remainder of both, twice over.
    content = np.random.default_rng(seed % 1000).bytes(3400)
    for length in range(241, 3400):
        assert kernels.checksum(content[:length], seed) == xxhash.xxh3_64_intdigest(
            content[:length], seed=seed
        )


@pytest.mark.parametrize("length", [0, 1, 240])
def test_the_checksum_is_not_for_short_input(length):
    with pytest.raises(ValueError, match=str(length)):
        kernels.checksum(bytes(length), 0)


def test_the_compiled_numbers_are_the_formats():
    assert {name: getattr(constants, name) for name in kernels.CONSTANTS} == kernels.CONSTANTS
    assert {"CLUSTER_SIZE", "BODY_SIZE", "USED_MAX", "SKIP_SIZE", "NO_BOUNDARY"} <= kernels.CONSTANTS.keys()


@given(uuid=st.binary(min_size=16, max_size=16), extent=st.integers(0, 2**32 - 1), generation=U64)
def test_the_seed_of_a_life_hashes_volume_extent_and_generation(uuid, extent, generation):
    assert journal_seed(uuid, extent, generation) == seed_of(uuid, extent, generation)
    others = {
        journal_seed(uuid, extent, (generation + 1) % 2**64),
        journal_seed(uuid, (extent + 1) % 2**32, generation),
        journal_seed(bytes([uuid[0] ^ 1]) + uuid[1:], extent, generation),
    }
    assert journal_seed(uuid, extent, generation) not in others


# ---- what makes a cluster valid


def cluster(entries: bytes = b"", seed: int = SEED, **changed: int) -> bytearray:
    """A tail copy of these entries whose seal is right, but for the fields that are given."""
    fields = {"generation": 5, "index": 3, "used": len(entries), "committed": len(entries), "sequence": 1}
    body = body_of(entries, closed=False)
    return bytearray(seal(body, seed=seed, durable=(0, 0), **{**fields, **changed}))


def test_a_cluster_is_valid_under_its_own_key_alone():
    whole = cluster(entry(2, bytes(48)))
    assert is_valid(KEY, whole)
    assert is_valid(journal_key(UUID, 7, 5), whole)
    for other in (journal_key(UUID, 7, 6), journal_key(UUID, 8, 5), journal_key(bytes(16), 7, 5)):
        assert not is_valid(other, whole)


def test_every_flipped_bit_makes_a_cluster_invalid():
    whole = cluster(entry(2, bytes(range(48))) * 40)
    flags = np.ones(1, np.uint8)
    for bit in range(len(whole) * 8):
        whole[bit // 8] ^= 1 << bit % 8
        KEY.valid_flags(whole, flags)
        assert not flags[0], bit
        whole[bit // 8] ^= 1 << bit % 8
    assert is_valid(KEY, whole)


@pytest.mark.parametrize(
    ("changed", "valid"),
    [
        ({}, True),
        ({"committed": NO_BOUNDARY}, True),
        ({"committed": 0}, True),
        ({"committed": 50}, True),
        ({"committed": 101}, False),
        ({"committed": 0xFFFE}, False),
        ({"used": 50, "committed": 50}, True),
        ({"used": 99, "committed": 50}, False),
        ({"used": 101, "committed": 50}, False),
        ({"used": 4063}, False),
        ({"used": 0xFFFF}, False),
        ({"generation": 77}, True),  # for people who look; the seed is what counts
    ],
)
def test_a_seal_must_fit_its_entries(changed, valid):
    # The checksum is right in all of them: this is another writer's fault, not the medium's.
    assert is_valid(KEY, cluster(entry(2, bytes(48)) * 2, **changed)) is valid


@pytest.mark.parametrize(
    ("entries", "valid"),
    [
        (b"", True),
        (entry(2, b""), True),
        (entry(0xFE, bytes(252)), True),
        (entry(2, bytes(252)) * 15 + entry(2, bytes(250)), True),  # 4062 bytes: full to the brim
        (b"\x00\x02", False),
        (b"\x01\x02", False),
        (b"\xff\x02" + bytes(253), False),
        (b"\x04\x02\x00", False),
        (b"\x02", False),
        (entry(2, bytes(9)) + b"\x02", False),
        (entry(0x00, b"x"), False),
        (entry(0x01, b"x"), False),
        (entry(0x03, b"x"), False),
        (entry(0xFF, b"x"), False),
    ],
)
def test_entries_must_tile_a_valid_cluster(entries, valid):
    assert is_valid(KEY, cluster(entries)) is valid


@given(
    where=st.lists(st.sampled_from(["good", "other index", "junk"]), max_size=9),
    first=st.integers(0, 2**32 - 20),
)
def test_clusters_count_while_they_are_valid_and_in_turn(where, first):
    image, flags = b"", []
    for number, kind in enumerate(where):
        index = first + number + (kind == "other index")
        one = cluster(entry(2, bytes(48)), index=index)
        image += bytes(one) if kind != "junk" else bytes(one[:-1]) + bytes([one[-1] ^ 1])
        flags.append(kind != "junk")
    good = next((number for number, kind in enumerate(where) if kind != "good"), len(where))
    assert KEY.count_valid(image, first) == good
    found = np.full(len(where), 7, np.uint8)
    KEY.valid_flags(image, found)
    assert found.tolist() == flags


@pytest.mark.parametrize("size", [1, 4095, 4097])
def test_what_is_no_whole_cluster_is_refused(size):
    with pytest.raises(ValueError, match="cluster"):
        KEY.count_valid(bytes(size), 0)
    with pytest.raises(ValueError, match="cluster"):
        KEY.valid_flags(bytes(size), np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="cluster"):
        seal_cluster(KEY, bytearray(size))
    with pytest.raises(ValueError, match="cluster"):
        locate_entries(bytes(size), 0, np.zeros(1, np.uint32))


def test_sealing_writes_the_checksum_and_nothing_else():
    whole = cluster(entry(2, bytes(48)))
    again = bytearray(whole)
    again[4088:] = bytes(8)
    seal_cluster(KEY, again)
    assert again == whole


@given(
    U64, st.integers(0, 2**32 - 1), st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(0, 4062)
)
def test_the_fields_of_a_seal_are_where_the_table_says(generation, index, sequence, durable, byte):
    body = body_of(b"", closed=False)
    made = seal(
        body,
        seed=SEED,
        generation=generation,
        index=index,
        used=0,
        committed=0,
        durable=(durable, byte),
        sequence=sequence,
    )
    found = parse_seal(made)
    assert (found.generation, found.index, found.used, found.committed) == (generation % 2**32, index, 0, 0)
    assert (found.durable, found.sequence) == ((durable, byte), sequence)
    assert found.checksum == struct.unpack(">Q", made[BODY + 24 :])[0]
    assert is_valid(KEY, made)


# ---- streams


ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from([0x02, 0x04, 0x05, 0x10, 0xEF, 0xF0, 0xFE]),
        st.integers(0, 252).map(lambda size: bytes(i * 7 % 256 for i in range(size))),
    ),
    max_size=60,
)


@given(ENTRIES)
def test_a_stream_is_cut_where_its_entries_start(entries):
    stream = b"".join(entries)
    starts = np.zeros(len(stream) // 2, np.uint32)
    count = split_entries(stream, starts)
    places = [sum(map(len, entries[:number])) for number in range(len(entries))]
    assert starts[:count].tolist() == places
    used = clusters = 0
    for one in entries:
        used, clusters = (used + len(one), clusters) if used + len(one) <= 4062 else (len(one), clusters + 1)
    assert measure_stream(stream) == ((len(entries), clusters + 1) if entries else (0, 0))


@given(
    ENTRIES,
    st.sampled_from(
        [b"\x00", b"\x01\x02", b"\xff\x02" + bytes(253), b"\x05\x02\x00", b"\x04\x01ab", b"\x02\xff"]
    ),
)
def test_what_is_no_entry_is_named_by_its_offset(entries, bad):
    stream = b"".join(entries) + bad
    for refuse in (
        lambda: split_entries(stream, np.zeros(len(stream), np.uint32)),
        lambda: measure_stream(stream),
    ):
        with pytest.raises(EntryError) as caught:
            refuse()
        assert caught.value.offset == len(stream) - len(bad)
        assert str(caught.value.offset) in str(caught.value)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_stream_or_an_error(stream):
    starts = np.zeros(len(stream), np.uint32)
    try:
        count = split_entries(stream, starts)
    except EntryError as error:
        assert 0 <= error.offset < len(stream)
        return
    at = [*starts[:count].tolist(), len(stream)]
    assert all(stream[one] == after - one >= 2 for one, after in itertools.pairwise(at))


@given(st.lists(ENTRIES, min_size=1, max_size=4), st.integers(0, 4096))
def test_entries_of_clusters_are_located(bodies, last_used):
    image, places = b"", []
    for number, entries in enumerate(bodies):
        kept, at = b"", 0
        for one in entries:
            if at + len(one) > 4062:
                break
            if number < len(bodies) - 1 or at + 2 <= last_used:
                places.append(number * 4096 + at)
            kept += one
            at += len(one)
        image += bytes(cluster(kept))
    starts = np.zeros(len(image) // 2, np.uint32)
    count = locate_entries(image, last_used, starts)
    assert starts[:count].tolist() == places
