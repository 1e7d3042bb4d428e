"""The index against a dict: whatever is put, overwritten and deleted, through growth and rolls, both say the same."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from indexed_log import (
    CLUSTER,
    DELETE,
    HASH,
    KEYLESS,
    SHORT,
    TYPES,
    VARYING,
    IndexedLog,
    deletion,
    entry,
    packed,
)

from siltstone.format.kernels import SealKey

#: few keys, so that they come again
KEY_NUMBERS = st.integers(0, 60)
VALUES = st.integers(0, 2**32 - 1)


def key_of(kind: int, number: int) -> bytes:
    return number.to_bytes(4, "big").rjust(TYPES[kind][1], b"k")


def payload_of(kind: int, number: int, value: int) -> bytes:
    """A payload of this type with the key of this number in it."""
    shown = value.to_bytes(4, "big")
    if kind == HASH:
        return key_of(kind, number) + shown * 4
    if kind == SHORT:
        return shown[:3] + key_of(kind, number)
    return shown[:1] + key_of(kind, number) + shown * (value % 50)


PUT = st.tuples(st.just("put"), st.sampled_from([HASH, SHORT, VARYING]), KEY_NUMBERS, VALUES)
REMOVE = st.tuples(st.just("delete"), st.sampled_from([HASH, SHORT, VARYING]), KEY_NUMBERS, VALUES)
OTHER = st.tuples(
    st.sampled_from(["keyless", "no key of ours", "too short"]), st.just(0), KEY_NUMBERS, VALUES
)
BATCH = st.lists(st.one_of(PUT, PUT, REMOVE, OTHER), min_size=1, max_size=30)


class IndexAndDict(RuleBasedStateMachine):
    """One shard with a small index, beside a dict of what it must hold."""

    @initialize(segments=st.sampled_from([1, 2, 8]), shared=st.booleans(), journals=st.sampled_from([16, 64]))
    def start(self, segments: int, shared: bool, journals: int) -> None:
        self.log = IndexedLog(segments, journal_bytes=journals * CLUSTER, shared=shared)
        self.held: dict[tuple[int, bytes], bytes] = {}
        #: which journal the newest entry of each key lies in
        self.journal_of: dict[tuple[int, bytes], int] = {}
        self.filler = 0

    @rule(batch=BATCH)
    def append(self, batch: list[tuple[str, int, int, int]]) -> None:
        entries, without_key, touched = [], 0, set()
        for what, kind, number, value in batch:
            if what == "put":
                touched.add((kind, key_of(kind, number)))
                payload = payload_of(kind, number, value)
                entries.append(entry(kind, payload))
                self.held[kind, key_of(kind, number)] = payload
            elif what == "delete":
                entries.append(deletion(kind, key_of(kind, number)))
                self.held.pop((kind, key_of(kind, number)), None)
            else:
                without_key += 1
                entries.append(
                    {
                        "keyless": entry(KEYLESS, bytes([number])),
                        "no key of ours": entry(DELETE, bytes([KEYLESS, number])),
                        "too short": entry(HASH, bytes(31)),
                    }[what]
                )
        assert self.log.apply(packed(entries)) == without_key
        # A batch never spans journals.
        self.journal_of |= dict.fromkeys(touched, self.log.number)

    @rule(count=st.integers(50, 700))
    def append_many(self, count: int) -> None:
        # Enough for segments to fill and grow.
        numbers = range(1000 + self.filler, 1000 + self.filler + count)
        self.filler += count
        entries = []
        for number in numbers:
            payload = payload_of(HASH, number, number)
            entries.append(entry(HASH, payload))
            self.held[HASH, key_of(HASH, number)] = payload
        for start in range(0, count, 300):  # a batch must fit a journal
            assert self.log.apply(packed(entries[start : start + 300])) == 0
            part = numbers[start : start + 300]
            self.journal_of |= {(HASH, key_of(HASH, number)): self.log.number for number in part}

    @rule()
    def roll(self) -> None:
        if len(self.log.journals) < 40:
            self.log.roll()

    @rule(number=KEY_NUMBERS, kind=st.sampled_from([HASH, SHORT, VARYING]))
    def get_one(self, number: int, kind: int) -> None:
        key = key_of(kind, number)
        assert self.log.get(kind, key) == self.held.get((kind, key))

    @invariant()
    def counts_what_lives_in_each_journal(self) -> None:
        living = [self.journal_of[key] for key in self.held]
        for number in range(len(self.log.journals)):
            assert self.log.index.tally(number)[3] == living.count(number)

    @invariant()
    def says_what_the_dict_says(self) -> None:
        assert self.log.index.records == len(self.held)
        for kind, width in ((HASH, 48), (SHORT, 8)):
            numbers = [*range(70), *range(1000, 1000 + self.filler, 7)]
            keys = np.array([list(key_of(kind, number)) for number in numbers], np.uint8)
            expected = [self.held.get((kind, key_of(kind, number))) for number in numbers]
            found, payloads = self.log.reader.get_many(kind, keys, width)
            assert found.tolist() == [value is not None for value in expected]
            assert [row.tobytes() for row in payloads] == [value or bytes(width) for value in expected]
            assert self.log.index.states_of(kind, keys).tolist() == [int(here) for here in found]
        for number in range(0, 70, 3):
            key = key_of(VARYING, number)
            assert self.log.get(VARYING, key) == self.held.get((VARYING, key))


TestIndexAndDict = IndexAndDict.TestCase
TestIndexAndDict.settings = settings(stateful_step_count=25)


def test_replayed_clusters_say_the_same():
    """What a journal's clusters hold is indexed as it was when it was appended."""
    rng = np.random.default_rng(5)
    first = IndexedLog(2, journal_bytes=1 << 20)
    second = IndexedLog(2, journal_bytes=1 << 20)
    others = 0
    for _ in range(40):
        batch = []
        for number in rng.integers(0, 900, 90).tolist():
            what = rng.integers(0, 10)
            batch.append(
                deletion(HASH, key_of(HASH, number))
                if what == 0
                else entry(KEYLESS, b"x")
                if what == 1
                else entry(HASH, payload_of(HASH, number, int(rng.integers(0, 2**32))))
            )
        others += first.apply(packed(batch))
    writer = first.writer
    journal = first.journals[0]
    clusters = bytes(journal[2 * CLUSTER : (2 + writer.index) * CLUSTER])
    assert SealKey(1).count_valid(clusters, 0) == writer.index
    tail = bytearray(CLUSTER)
    writer.tail_copy(tail)
    second.journals[0][:] = journal[:]
    second.journals[0][CLUSTER : 2 * CLUSTER] = tail
    # In two parts, as a replay reads them; the tail from the slot that it is in.
    half = writer.index // 2
    second.index.publish_end(0, writer.index, 1)
    entries = without_key = 0
    for at, part, used in (
        (0, clusters[: half * CLUSTER], CLUSTER),
        (half, clusters[half * CLUSTER :], CLUSTER),
        (writer.index, bytes(tail), writer.used),
    ):
        found, keyless, _unknown = second.index.apply_clusters(0, part, at, used)
        entries += found
        without_key += keyless
    assert (entries, without_key) == (40 * 90, others)
    assert second.index.records == first.index.records
    for number in range(900):
        key = key_of(HASH, number)
        assert second.get(HASH, key) == first.get(HASH, key)


def test_of_the_last_cluster_only_so_many_bytes_count():
    log, again = IndexedLog(), IndexedLog()
    entries = [entry(HASH, payload_of(HASH, number, number)) for number in range(20)]
    log.apply(packed(entries))
    tail = bytearray(CLUSTER)
    log.writer.tail_copy(tail)
    again.journals[0][2 * CLUSTER : 3 * CLUSTER] = tail
    again.index.publish_end(0, 0, None)
    assert again.index.apply_clusters(0, tail, 0, 7 * 50)[:2] == (7, 0)
    assert again.index.records == 7
    assert again.get(HASH, key_of(HASH, 6)) == payload_of(HASH, 6, 6)
    assert again.get(HASH, key_of(HASH, 7)) is None
