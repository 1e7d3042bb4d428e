"""What of a journal still counts, against a model: packed elsewhere, dropped, put again meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from indexed_log import CLUSTER, HASH, KEYLESS, SECRET, IndexedLog, deletion, entry, packed

from siltstone.format.seal import journal_key
from siltstone.hash_store.builder import HashStoreBuilder
from siltstone.hash_store.extent import plan
from siltstone.hash_store.older import OlderStores
from siltstone.hash_store.sorting import sort_entries
from siltstone.hash_store.view import HashStoreView
from siltstone.index.table import ABSENT, DELETED, PUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siltstone.index.table import LogIndex

KEYS = st.integers(0, 40)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "keyless"]), KEYS), min_size=1, max_size=40
)


@dataclass(frozen=True)
class Written:
    """One entry of a journal; no two are alike."""

    number: int
    what: str
    key: int

    @property
    def packed(self) -> bytes:
        mark = self.number.to_bytes(16, "big")
        if self.what == "put":
            return entry(HASH, key_of(self.key) + mark)
        return deletion(HASH, key_of(self.key)) if self.what == "delete" else entry(KEYLESS, mark)


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "little")


def show_hash_store(index: LogIndex, entries: Iterable[Written]) -> None:
    """Let lookups go on in a hash store of these."""
    key = journal_key(bytes(16), 1, 1)
    stream = sort_entries(index.types, SECRET, [packed(one.packed for one in entries)])
    clusters = plan(len(stream) // 3, len(stream), 254)
    extent = bytearray(clusters * CLUSTER)

    def write(offset: int, data: memoryview) -> None:
        extent[offset : offset + len(data)] = data

    builder = HashStoreBuilder(
        key, 1, index.types, SECRET, write, entries_max=len(stream) // 3, clusters=clusters
    )
    builder.add(stream)
    builder.finish()
    view = HashStoreView(extent, key, index.types, SECRET)
    one = (1, 1, 0, len(extent), 0, 0, view.records, view.tombstones)
    index.list_older(OlderStores([(view, one)]), [one])


class Journals(RuleBasedStateMachine):
    """Journals that are packed and dropped, beside lists of what they hold and what the index names."""

    @initialize(older=st.booleans(), journal_bytes=st.sampled_from([8 * CLUSTER, 32 * CLUSTER]))
    def start(self, older: bool, journal_bytes: int) -> None:
        self.log = IndexedLog(2, journal_bytes=journal_bytes)
        #: what a hash store says, for half of the keys; it is older than every journal
        self.older = {key: Written(0, "put", key) for key in range(0, 41, 2)} if older else {}
        if older:
            show_hash_store(self.log.index, self.older.values())
        self.written = 0
        self.journals: dict[int, list[Written]] = {}
        self.named: dict[int, Written] = {}

    @rule(operations=OPERATIONS)
    def append(self, operations: list[tuple[str, int]]) -> None:
        batch = []
        for what, key in operations:
            self.written += 1
            batch.append(Written(self.written, what, key))
        self.log.apply(packed(one.packed for one in batch))
        self.journals.setdefault(self.log.number, []).extend(batch)
        for one in batch:
            # Of a key that the hash store has the deletion is remembered.
            if one.what == "put" or (one.what == "delete" and one.key in self.older):
                self.named[one.key] = one
            elif one.what == "delete":
                self.named.pop(one.key, None)

    @rule()
    def roll(self) -> None:
        if len(self.log.journals) < 60:
            self.log.roll()

    def _closed(self, choice: int) -> int | None:
        closed = [number for number in self.journals if number < self.log.number]
        return closed[choice % len(closed)] if closed else None

    def _expect(self, number: int, *, keep_deletes: bool) -> list[Written]:
        return [
            one
            for one in self.journals[number]
            if one.what == "keyless"
            or self.named.get(one.key) == one
            or (keep_deletes and one.what == "delete" and one.key not in self.named)
        ]

    @rule(choice=st.integers(0, 50), keep_deletes=st.booleans(), meanwhile=OPERATIONS)
    def pack(self, choice: int, keep_deletes: bool, meanwhile: list[tuple[str, int]]) -> None:
        number = self._closed(choice)
        if number is None:
            return
        expected = self._expect(number, keep_deletes=keep_deletes)
        parts = self.log.living(number, keep_deletes=keep_deletes)
        assert b"".join(bytes(stream) for stream, _places in parts) == b"".join(
            one.packed for one in expected
        )
        moves, copies = [], iter(expected)
        for stream, places in parts:
            if len(stream):
                positions = self.log.append(stream)
                moves.append((self.log.number, stream, places, positions))
                self.journals.setdefault(self.log.number, []).extend(next(copies) for _ in positions)
        before = {one.number for one in expected if self.named.get(one.key) == one}
        self.append(meanwhile)
        moved = sum(self.log.index.move(*move) for move in moves)
        assert moved == len(before & {one.number for one in self.named.values()})
        self._forget(number)

    @rule(choice=st.integers(0, 50), meanwhile=OPERATIONS)
    def drop(self, choice: int, meanwhile: list[tuple[str, int]]) -> None:
        number = self._closed(choice)
        if number is None:
            return
        expected = [one for one in self._expect(number, keep_deletes=False) if one.what != "keyless"]
        parts = self.log.living(number, keep_deletes=False)
        self.append(meanwhile)
        dropped = sum(self.log.index.drop(stream, places) for stream, places in parts)
        still = [one for one in expected if self.named.get(one.key) == one]
        assert dropped == len(still)
        for one in still:
            del self.named[one.key]
        self._forget(number)

    @rule(keys=st.lists(st.integers(0, 40), unique=True, min_size=1))
    def sweep(self, keys: list[int]) -> None:
        """The hash store without some of what the index overrules, which then forgets the deletions of that."""
        swept = [key for key in keys if key in self.older and key in self.named]
        left = {key: one for key, one in self.older.items() if key not in swept}
        if not swept or not left:
            return
        show_hash_store(self.log.index, left.values())
        self.older = left
        gone = [key for key in swept if self.named[key].what == "delete"]
        # Whatever is said of these keys: it goes by the key alone.
        forgotten = self.log.index.forget_deletions(
            packed(Written(0, "put" if key % 3 else "delete", key).packed for key in swept)
        )
        assert forgotten == len(gone)
        for key in gone:
            del self.named[key]

    def _forget(self, number: int) -> None:
        assert self.log.index.tally(number)[3] == 0
        self.log.index.detach(number)
        del self.journals[number]

    @invariant()
    def says_what_the_model_says(self) -> None:
        keys = np.array([list(key_of(key)) for key in range(41)], np.uint8)
        found, payloads = self.log.reader.get_many(HASH, keys, 48)
        seen = self.older | self.named
        puts = {key: one for key, one in seen.items() if one.what == "put"}
        assert {key for key in range(41) if found[key]} == set(puts)
        for key, one in puts.items():
            assert payloads[key].tobytes() == one.packed[2:]
            assert self.log.get(HASH, key_of(key)) == one.packed[2:]
        states = self.log.index.states_of(HASH, keys).tolist()
        deleted = {key for key, one in self.named.items() if one.what == "delete"}
        assert states == [
            PUT if key in self.named.keys() - deleted else DELETED if key in deleted else ABSENT
            for key in range(41)
        ]
        assert self.log.index.records == len(self.named) - len(deleted)
        assert self.log.index.tombstones == len(deleted)
        twice = (self.named.keys() - deleted) & self.older.keys()
        assert self.log.index.keys == len(puts) + len(twice)
        for number, written in self.journals.items():
            entries, deletions, keyless, named = self.log.index.tally(number)
            assert named == sum(self.named.get(one.key) == one for one in written if one.what != "keyless")
            assert entries == len(written)
            assert deletions == sum(one.what == "delete" for one in written)
            assert keyless == sum(one.what == "keyless" for one in written)


TestJournals = Journals.TestCase
TestJournals.settings = settings(stateful_step_count=30)


def test_a_journal_that_is_named_is_not_forgotten():
    log = IndexedLog(1)
    log.apply(packed([entry(HASH, key_of(1) + bytes(16))]))
    log.roll()
    with pytest.raises(ValueError, match="1 entries in it are still named"):
        log.index.detach(0)


def test_a_deletion_is_remembered_only_where_a_hash_store_has_the_key():
    log = IndexedLog(1)
    log.apply(packed([deletion(HASH, key_of(1))]))
    assert log.index.tally(0) == (1, 1, 0, 0)
    show_hash_store(log.index, [Written(0, "put", 1), Written(0, "delete", 2)])
    assert log.get(HASH, key_of(1)) is not None
    log.apply(packed([deletion(HASH, key_of(1)), deletion(HASH, key_of(2)), deletion(HASH, key_of(3))]))
    assert log.index.tally(0) == (4, 4, 0, 1)
    assert (log.index.records, log.index.keys, log.get(HASH, key_of(1))) == (0, 0, None)
