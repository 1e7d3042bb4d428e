"""What a builder refuses, and how it behaves when its medium fails."""

from __future__ import annotations

import pytest
from built_stores import (
    COLLISIONS,
    GENERATION,
    HASH,
    KEY,
    KEYLESS,
    PAGE,
    SECRET,
    SHORT,
    TYPES,
    deletion,
    entry,
    hash_infos,
    in_order,
    put,
    split,
)

from siltstone.errors import EntryError, MediumError, StateError
from siltstone.hash_store.builder import HashStoreBuilder


def builder(
    entries_max: int = 1000, clusters: int = 100, written: list[tuple[int, int]] | None = None
) -> HashStoreBuilder:
    return HashStoreBuilder(
        KEY,
        GENERATION,
        TYPES,
        SECRET,
        lambda offset, data: None if written is None else written.append((offset, len(data))),
        entries_max=entries_max,
        clusters=clusters,
    )


def check_refused(stream: bytes, offset: int, match: str, *before: bytes) -> None:
    built = builder()
    for one in before:
        built.add(one)
    with pytest.raises(EntryError, match=match) as caught:
        built.add(stream)
    assert caught.value.offset == offset
    # Nothing goes on behind what was refused.
    for go_on in (lambda: built.add(b""), built.finish):
        with pytest.raises(StateError):
            go_on()


def test_entries_out_of_order_are_refused():
    one, two, three = split(in_order(hash_infos(3)))
    check_refused(one + three + two, 100, "before the one")
    check_refused(two, 0, "before the one", one, three)


def test_a_key_that_was_there_is_refused():
    one, two = split(in_order(hash_infos(2)))
    check_refused(one + two + two, 100, "has the key")
    check_refused(two[:34] + bytes(16), 0, "has the key", one, two)
    check_refused(deletion(HASH, two[2:34]), 0, "has the key", one, two)


@pytest.mark.parametrize("pair", COLLISIONS)
def test_keys_of_one_hash_are_refused_in_the_wrong_order_only(pair):
    one, two = (put(kind, key) for kind, key in sorted(pair))
    check_refused(two + one, len(two), "before the one")
    built = builder()
    built.add(one + two)
    assert built.finish().entries == 2


def test_entries_without_a_key_are_refused():
    good = put(SHORT, b"abcde")
    for bad in (entry(KEYLESS, bytes(20)), entry(0x04, bytes([SHORT])), entry(0x04, b""), entry(HASH, b"")):
        check_refused(good + bad, len(good), "no key")


def test_what_is_no_entry_is_refused():
    good = put(SHORT, b"abcde")
    for bad in (b"\x00\x02", b"\x01\x02", b"\xff\x10", b"\x05", b"\x05\x01abc", b"\x22\x03", good[:-1]):
        check_refused(good + bad, len(good), "no valid entry")


def test_more_than_was_planned_is_refused():
    entries = list(split(in_order(hash_infos(1000))))
    built = builder(entries_max=10)
    built.add(b"".join(entries[:10]))
    with pytest.raises(StateError, match="more than 10 entries"):
        built.add(entries[10])
    # A page each of header, records, filter and fences; a page more of records is one too many.
    built = builder(clusters=4)
    built.add(b"".join(entries[:79]))
    with pytest.raises(StateError, match="4 clusters"):
        built.add(entries[79])
    # The filter takes one more than one page.
    many = in_order(put(SHORT, i.to_bytes(5, "big")) for i in range(6000))
    pages = -(-6000 // (4064 // 11))
    built = builder(entries_max=6000, clusters=pages + 3)
    with pytest.raises(StateError, match="clusters hold"):
        built.add(many)
        built.finish()


def test_pages_are_written_in_order_and_the_header_last():
    written: list[tuple[int, int]] = []
    built = builder(60_000, 1000, written)
    built.add(in_order(hash_infos(60_000)))
    header = built.finish()
    *pages, last = written
    assert last == (0, PAGE)
    assert [offset for offset, _size in pages] == [
        PAGE + sum(size for _offset, size in pages[:i]) for i in range(len(pages))
    ]
    assert sum(size for _offset, size in written) == header.clusters * PAGE
    assert max(size for _offset, size in pages) == 1 << 20


def test_a_write_that_fails_ends_the_build():
    def fail(offset: int, data: memoryview) -> None:
        raise MediumError("no", offset=offset)

    built = HashStoreBuilder(KEY, GENERATION, TYPES, SECRET, fail, entries_max=100, clusters=10)
    built.add(in_order(hash_infos(50)))
    with pytest.raises(MediumError):
        built.finish()
    with pytest.raises(StateError):
        built.finish()


def test_a_store_is_finished_once():
    built = builder()
    built.finish()
    for go_on in (lambda: built.add(put(SHORT, b"abcde")), built.finish):
        with pytest.raises(StateError):
            go_on()


@pytest.mark.parametrize("counts", [(-1, 10), (1 << 40, 10), (10, 1), (10, 1 << 40)])
def test_sizes_that_no_hash_store_has_are_refused(counts):
    with pytest.raises(ValueError, match="clusters"):
        builder(*counts)
