"""Entries of journals in the order of a hash store, the newest of each key."""

from __future__ import annotations

import numpy as np
import page_model
import pytest
from built_stores import (
    HASH,
    KEYLESS,
    ONE,
    SECRET,
    SHORT,
    TYPES,
    VARYING,
    entries_of,
    entry,
    hash_infos,
    key_of,
    put,
    split,
)
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.format.kernels import ClusterWriter, SealKey
from siltstone.hash_store.sorting import cluster_entries, hashes_of, sort_entries

ENTRIES = entries_of(st.integers(0, 30))


def model(streams: list[list[bytes]], *, drop_deletes: bool = False) -> bytes:
    newest = {key_of(one): one for stream in streams for one in stream}
    ordered = sorted(newest, key=lambda key: (page_model.siphash13(SECRET, *key), key))
    return b"".join(newest[key] for key in ordered if not (drop_deletes and newest[key][1] == 0x04))


@given(st.lists(st.lists(ENTRIES, max_size=60), max_size=4), st.booleans())
def test_it_is_what_a_dict_sorted_says(streams, drop_deletes):
    buffers = [b"".join(stream) for stream in streams]
    found = sort_entries(TYPES, SECRET, buffers, drop_deletes=drop_deletes)
    assert found.tobytes() == model(streams, drop_deletes=drop_deletes)


@given(st.lists(ENTRIES, max_size=60))
def test_the_hashes_are_those_of_the_keys(entries):
    found = hashes_of(TYPES, SECRET, b"".join(entries))
    assert found.tolist() == [page_model.siphash13(SECRET, *key_of(one)) for one in entries]
    ordered = hashes_of(TYPES, SECRET, sort_entries(TYPES, SECRET, [b"".join(entries)])).tolist()
    assert ordered == sorted(ordered)


def test_what_has_no_key_has_no_hash():
    good = put(SHORT, b"abcde")
    with pytest.raises(EntryError, match="has no key") as caught:
        hashes_of(TYPES, SECRET, good + entry(KEYLESS, b"abc"))
    assert caught.value.offset == len(good)
    with pytest.raises(EntryError):
        hashes_of(TYPES, SECRET, good[:-1])
    with pytest.raises(ValueError, match="16"):
        hashes_of(TYPES, b"short", good)


def test_many_entries_and_many_versions():
    entries = hash_infos(3000)
    again = [one[:34] + bytes(16) for one in entries[::3]]
    hot = [put(ONE, b"samesame", i.to_bytes(4, "big")) for i in range(5000)]
    streams = [entries, hot, again]
    assert sort_entries(TYPES, SECRET, map(b"".join, streams)).tobytes() == model(streams)


def test_what_is_no_entry_is_refused_with_its_offset():
    good = put(SHORT, b"abcde")
    for bad in (b"\x00\x02", b"\x01\x02", b"\xff\x10", b"\x05", b"\x05\x01abc", good[:-1]):
        with pytest.raises(EntryError) as caught:
            sort_entries(TYPES, SECRET, [good, good * 2 + bad])
        assert caught.value.offset == 2 * len(good)


def test_entries_without_a_key_are_refused_or_skipped():
    keyless = entry(KEYLESS, b"something"), entry(0x04, bytes([SHORT]) + b"abcd"), entry(HASH, bytes(31))
    good = put(SHORT, b"abcde")
    for one in keyless:
        with pytest.raises(EntryError, match="no key") as caught:
            sort_entries(TYPES, SECRET, [good + one])
        assert caught.value.offset == len(good)
        assert sort_entries(TYPES, SECRET, [one + good + one], skip_keyless=True).tobytes() == good


def test_nothing_is_nothing():
    assert sort_entries(TYPES, SECRET, []).size == 0
    assert sort_entries(TYPES, SECRET, [b"", bytearray()]).size == 0


def test_the_entries_of_journal_clusters():
    entries = [*hash_infos(300), *(put(VARYING, bytes(12), bytes(size)) for size in range(0, 240, 7))]
    stream = np.frombuffer(b"".join(entries), np.uint8)
    writer = ClusterWriter(SealKey(1), 1, b"", 0, 0, (0, 0))
    positions = np.empty(len(entries), np.uint64)
    clusters = bytes(writer.stage(stream, positions))
    writer.take(len(clusters) // 4096)
    clusters += bytes(writer.tail_view()[:4072]) + writer.used.to_bytes(2, "big") + bytes(22)
    assert cluster_entries(clusters, 4096).tobytes() == b"".join(entries)
    before = len(b"".join(entries)) - writer.used
    first = next(iter(split(writer.tail_bytes())))
    assert cluster_entries(clusters, len(first)).tobytes() == b"".join(entries)[: before + len(first)]
    assert cluster_entries(b"", 0).size == 0
    with pytest.raises(ValueError, match="whole clusters"):
        cluster_entries(bytes(100), 0)
    with pytest.raises(ValueError, match="says 65535"):
        cluster_entries(b"\xff" * 4096, 65535)
