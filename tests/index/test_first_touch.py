"""Clusters that no replay of this process has verified are verified by the first lookup that needs them."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from indexed_log import CLUSTER, HASH, SECRET, TYPES, IndexedLog, entry, packed

from siltstone.errors import DamageError
from siltstone.format.kernels import ClusterWriter
from siltstone.format.seal import journal_key

EXTENT, GENERATION, OFFSET = 7, 9, 1 << 20
KEYS = 400


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def record(number: int) -> bytes:
    return entry(HASH, key(number) + number.to_bytes(16, "big"))


class SealedLog(IndexedLog):
    """One journal of sealed clusters with its last one in slot 1, which nobody has read."""

    def __init__(self, *, generation: int = GENERATION, slot: int = 1) -> None:
        super().__init__(journal_bytes=64 * CLUSTER, types=TYPES, secret=SECRET)
        writer = ClusterWriter(journal_key(SECRET, EXTENT, generation), generation, b"", 0, 0, (0, 0))
        stream = packed(map(record, range(KEYS)))
        entries, closed = writer.measure(stream)
        self.positions = np.empty(entries, np.uint64)
        staged = writer.stage(stream, self.positions)
        journal = self.journal = mmap.mmap(-1, self.journal_bytes)
        journal[2 * CLUSTER : (2 + closed) * CLUSTER] = bytes(staged)
        writer.take(closed)
        copy = np.zeros(CLUSTER, np.uint8)
        writer.tail_copy(copy)
        journal[slot * CLUSTER : (slot + 1) * CLUSTER] = copy.tobytes()
        self.closed = closed
        self.index.attach(1, journal, OFFSET)
        self.index.publish_end(1, closed, slot)
        self.index.apply(1, stream, self.positions)
        # As after a checkpoint: what the index says is known, what the clusters hold is not.
        self.index.attach(1, journal, OFFSET, EXTENT, GENERATION, SECRET)
        self.index.publish_end(1, closed, slot)

    def rows(self) -> np.ndarray:
        return np.frombuffer(b"".join(map(key, range(KEYS))), np.uint8).reshape(-1, 32)

    def cluster_of(self, number: int) -> int:
        """Which cluster of the extent holds a record."""
        cluster = int(self.positions[number]) // CLUSTER
        return 1 if cluster == 2 + self.closed else cluster

    def flip(self, offset: int) -> None:
        self.journal[offset] ^= 0x10


def test_what_is_whole_is_served_and_verified_once():
    log = SealedLog()
    for _again in range(2):
        found, payloads = log.reader.get_many(HASH, log.rows(), 48)
        assert found.all()
        assert bytes(payloads[KEYS - 1]) == record(KEYS - 1)[2:]
    # Nobody looks at a seal a second time.
    for cluster in range(1, 2 + log.closed):
        log.flip((cluster + 1) * CLUSTER - 1)
    assert log.reader.get_many(HASH, log.rows(), 48)[0].all()


@pytest.mark.parametrize("number", [0, KEYS // 2, KEYS - 1], ids=["first", "middle", "in the slot"])
@pytest.mark.parametrize("at", [3, 4000, 4068, 4095])
def test_one_flipped_bit_is_damage(number, at):
    log = SealedLog()
    cluster = log.cluster_of(number)
    log.flip(cluster * CLUSTER + at)
    index = log.closed if cluster < 2 else cluster - 2
    for look in (lambda: log.get(HASH, key(number)), lambda: log.reader.get_many(HASH, log.rows(), 48)):
        with pytest.raises(DamageError) as caught:
            look()
        assert caught.value.fields == {
            "journal": EXTENT,
            "cluster": index,
            "offset": OFFSET + cluster * CLUSTER,
        }
    others = [other for other in range(KEYS) if log.cluster_of(other) != cluster]
    assert log.reader.get_many(HASH, log.rows()[others], 48)[0].all()


def test_the_writer_does_not_believe_what_is_damaged_either():
    log = SealedLog()
    log.flip(log.cluster_of(5) * CLUSTER + 100)
    with pytest.raises(DamageError):
        log.index.states_of(HASH, log.rows()[5:6])
    with pytest.raises(DamageError):
        log.apply(packed([record(5)]))
    with pytest.raises(DamageError):
        log.apply(packed([entry(0x04, bytes([HASH]) + key(5))]))


def test_clusters_of_another_life_are_damage():
    log = SealedLog(generation=GENERATION + 1)
    with pytest.raises(DamageError):
        log.get(HASH, key(0))


def test_two_clusters_in_each_others_place_are_damage():
    log = SealedLog()
    one, two = log.journal[2 * CLUSTER : 3 * CLUSTER], log.journal[3 * CLUSTER : 4 * CLUSTER]
    log.journal[2 * CLUSTER : 4 * CLUSTER] = two + one
    with pytest.raises(DamageError):
        log.get(HASH, key(0))
