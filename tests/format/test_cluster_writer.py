"""The compiled writer of clusters against a slow model of the format: every byte of every cluster and tail copy."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import rfc_reader
from cluster_model import CLUSTER, Model, entry, seed_of
from hypothesis import given, settings
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.format.kernels import ClusterWriter, SealKey
from siltstone.format.seal import is_valid, parse_seal
from siltstone.format.superblock import Extent
from siltstone.journal.sealed import SealedJournal

SEED = seed_of(bytes(range(16)), 7, 5)
KEY = SealKey(SEED)
GENERATION = 5 + (3 << 32)

KINDS = st.sampled_from([0x02, 0x04, 0x0F, 0x10, 0xEF, 0xFE])
#: sizes at the edges of the format come up often
PAYLOAD_SIZES = st.one_of(st.sampled_from([0, 1, 48, 250, 251, 252]), st.integers(0, 252))
ENTRY = st.builds(
    lambda kind, size, fill: entry(kind, bytes([fill]) * size), KINDS, PAYLOAD_SIZES, st.integers(0, 255)
)
BATCH = st.one_of(
    st.lists(ENTRY, min_size=1, max_size=4),
    # Long runs, so that batches close several clusters, now and then exactly at 4062 bytes.
    st.builds(lambda one, count: [one] * count, ENTRY, st.integers(1, 260)),
)
STEP = st.one_of(
    st.tuples(st.just("batch"), BATCH),
    st.tuples(st.just("tail"), BATCH),
    st.tuples(st.just("durable"), st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 4062))),
)


def tail_copy(writer: ClusterWriter) -> bytes:
    copy = bytearray(CLUSTER)
    writer.tail_copy(copy)
    return bytes(copy)


def stage(writer: ClusterWriter, batch: list[bytes]) -> tuple[list[bytes], list[int]]:
    """The clusters that a batch closes, and where its entries come to lie."""
    positions = np.zeros(len(batch), np.uint64)
    view = writer.stage(np.frombuffer(b"".join(batch), np.uint8), positions)
    clusters = b"" if view is None else bytes(view)
    return [clusters[at : at + CLUSTER] for at in range(0, len(clusters), CLUSTER)], positions.tolist()


def starts(batch: list[bytes]) -> list[int]:
    """Where each entry of a batch starts in it."""
    return list(accumulate((len(one) for one in batch[:-1]), initial=0))


def assert_same_state(writer: ClusterWriter, model: Model) -> None:
    assert writer.position == (model.index, len(model.tail))
    assert writer.sequence == model.sequence
    assert writer.tail_bytes() == model.tail
    assert bytes(writer.tail_view())[: len(model.tail)] == model.tail
    assert tail_copy(writer) == model.tail_copy()


@settings(max_examples=4 * settings.default.max_examples)
@given(
    steps=st.lists(STEP, max_size=25),
    tail=st.lists(ENTRY, max_size=16),
    index=st.integers(0, 2**20),
    sequence=st.sampled_from([0, 1, 2**32 - 2, 2**48 - 100]),
)
def test_the_writer_writes_what_the_model_says(steps, tail, index, sequence):
    start = b"".join(tail)
    model = Model(SEED, GENERATION, start, index, sequence, (index, len(start)))
    writer = ClusterWriter(KEY, GENERATION, start, index, sequence, (index, len(start)))
    assert_same_state(writer, model)
    for kind, value in steps:
        if kind == "durable":
            writer.durable = model.durable = value
        elif kind == "tail":
            found = writer.append(b"".join(value))
            if found < 0:
                assert len(model.tail) + sum(map(len, value)) > 4062
                kind = "batch"
            else:
                assert [found + at for at in starts(value)] == model.append(value)
        if kind == "batch":
            before = tail_copy(writer)
            entries, count = writer.measure(b"".join(value))
            clusters, positions = stage(writer, value)
            assert tail_copy(writer) == before, "staging changed the writer"
            expected = before_batch(model)
            assert positions == expected.append(value)
            assert (entries, count) == (len(value), len(expected.closed))
            assert clusters == expected.closed
            assert all(is_valid(KEY, cluster) for cluster in clusters)
            writer.take(count)
            model.append(value)
        assert_same_state(writer, model)


def before_batch(model: Model) -> Model:
    """A copy that closes clusters of its own."""
    copy = Model(SEED, GENERATION, model.tail, model.index, model.sequence, model.durable)
    copy.boundary = model.boundary
    return copy


@given(
    count=st.integers(82, 600),
    first=st.integers(0, 7),
    durable=st.tuples(st.integers(0, 9), st.integers(0, 4062)),
)
def test_restamping_puts_the_new_durable_position_into_later_clusters(count, first, durable):
    batch = [entry(2, bytes(48))] * count
    writer = ClusterWriter(KEY, GENERATION, b"", 0, 3, (0, 0))
    _entries, closed = writer.measure(b"".join(batch))
    first = min(first, closed)
    view = writer.stage(np.frombuffer(b"".join(batch), np.uint8), np.zeros(count, np.uint64))
    before = [bytes(view[at : at + CLUSTER]) for at in range(0, closed * CLUSTER, CLUSTER)]
    writer.durable = durable
    writer.restamp(first, closed)
    after = [bytes(view[at : at + CLUSTER]) for at in range(0, closed * CLUSTER, CLUSTER)]
    assert after[:first] == before[:first]
    model = Model(SEED, GENERATION, sequence=3, durable=durable)
    model.append(batch)
    assert after[first:] == model.closed[first:]


def test_where_a_batch_ends_with_its_cluster_the_next_one_starts_at_a_boundary():
    brim = [entry(2, bytes(252))] * 15 + [entry(2, bytes(250))]  # 4062 bytes
    writer = ClusterWriter(KEY, 5, b"", 0, 0, (0, 0))
    assert stage(writer, brim)[0] == []
    writer.take(0)
    assert writer.position == (0, 4062), "a cluster is closed when an entry comes, not because it is full"
    clusters, _positions = stage(writer, [entry(2, bytes(252))] * 40)
    found = [(parse_seal(one).committed, parse_seal(one).sequence) for one in clusters]
    assert found == [(4062, 1), (0, 1), (0xFFFF, 1)]


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x03, 0xFF])
def test_types_of_the_layout_cannot_be_appended(kind):
    writer = ClusterWriter(KEY, 5, b"", 0, 0, (0, 0))
    for method in (
        writer.append,
        writer.measure,
        lambda stream: writer.stage(stream, np.zeros(1, np.uint64)),
    ):
        with pytest.raises(EntryError):
            method(np.frombuffer(entry(kind, b"payload"), np.uint8))
    assert writer.position == (0, 0)


def test_an_entry_of_255_bytes_cannot_be_appended():
    writer = ClusterWriter(KEY, 5, b"", 0, 0, (0, 0))
    with pytest.raises(EntryError, match="255"):
        writer.append(b"\xff\x02" + bytes(253))
    assert writer.position == (0, 0)


# ---- what others see


class Image:
    """A medium in memory."""

    url = "memory:image"
    read_only = False

    def __init__(self, size: int) -> None:
        self.data = bytearray(b"\x5a" * size)

    def write(self, offset: int, data: bytes) -> None:
        piece = memoryview(data).cast("B")
        self.data[offset : offset + len(piece)] = piece

    def flush(self) -> None: ...


@given(batches=st.lists(BATCH, min_size=1, max_size=12))
def test_a_reader_of_the_rfc_sees_every_entry_of_the_closed_clusters(batches):
    image = Image(64 * CLUSTER)
    extent = Extent(7, 0, len(image.data), "journal", state="active", generation=5)
    journal = SealedJournal(image, bytes(16), extent, image.flush)
    journal.prepare()
    written: list[bytes] = []
    for batch in batches:
        if not journal.fits(np.frombuffer(b"".join(batch), np.uint8)):
            continue
        journal.append_stream(np.frombuffer(b"".join(batch), np.uint8))
        written += batch
    closed = bytes(image.data[2 * CLUSTER : (2 + journal.position.cluster) * CLUSTER])
    seen = [
        entry(kind, payload) for _at, kind, payload in rfc_reader.walk(closed) if kind not in (0x01, 0x03)
    ]
    in_tail = journal.writer.tail_bytes()
    assert b"".join(seen) + in_tail == b"".join(written)
    assert seen == written[: len(seen)]
    # The last thing in each cluster is an END that jumps to the next one.
    ends = [at + len(payload) + 2 for at, kind, payload in rfc_reader.walk(closed) if kind == 0x01]
    assert ends == list(range(CLUSTER, len(closed) + 1, CLUSTER))
