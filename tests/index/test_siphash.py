"""SipHash against the paper's own vector and an independent statement, and the shard that it chooses for a key."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from indexed_log import TYPES

from siltstone.errors import EntryError
from siltstone.index.routing import Router, siphash_2_4
from siltstone.index.types import KeyTypes

KINDS = KeyTypes(TYPES)


def test_the_papers_vector():
    # Aumasson and Bernstein, "SipHash: a fast short-input PRF", appendix A.
    assert siphash_2_4(bytes(range(15)), bytes(range(16))) == 0xA129CA6149BE45E5


@pytest.mark.parametrize(
    ("size", "expected"),
    # From the same authors' reference implementation: messages 00, 00 01, ... under the key 00 ... 0f.
    [(0, 0x726FDB47DD0E0E31), (1, 0x74F839C593DC67FD), (8, 0x93F5F5799A932462), (63, 0x958A324CEB064572)],
)
def test_the_authors_vectors(size, expected):
    assert siphash_2_4(bytes(range(size)), bytes(range(16))) == expected


# ---- the shard of a key

UUID = bytes.fromhex("6f8e1d2c3b4a59687786958493a2b1c0")


def keys_of(count: int, size: int = 32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)


#: once a store is formatted these never change: a changed number here is a store that lost its records
FROZEN = {
    (0x02, 8): [1, 7, 5, 2, 1, 3, 4, 0, 4, 4, 1, 7],
    (0x02, 1000): [209, 881, 734, 269, 222, 470, 534, 19, 521, 605, 157, 968],
    (0x10, 8): [2, 7, 5, 7, 7, 4, 6, 0, 4, 6, 2, 1],
}


def frozen_keys(size: int) -> np.ndarray:
    return np.array([list(hashlib.sha256(bytes([number])).digest()[:size]) for number in range(12)], np.uint8)


@pytest.mark.parametrize(("kind", "shards"), FROZEN)
def test_the_shard_of_a_key_never_changes(kind, shards):
    keys = frozen_keys(TYPES[kind][1])
    router = Router(KINDS, UUID, shards)
    assert router.shards_of(kind, keys).tolist() == FROZEN[kind, shards]
    assert [router.shard(kind, key) for key in keys] == FROZEN[kind, shards]


@pytest.mark.parametrize("shards", [2, 3, 8, 13, 256])
@pytest.mark.parametrize("kind", [0x02, 0x10])
@pytest.mark.parametrize("pattern", ["random", "counting"])
def test_keys_are_spread_evenly(shards, kind, pattern):
    size, count = TYPES[kind][1], 200_000
    keys = keys_of(count, size)
    if pattern == "counting":
        keys = np.zeros((count, size), np.uint8)
        keys[:, -4:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    found = np.bincount(Router(KINDS, UUID, shards).shards_of(kind, keys), minlength=shards)
    expected = count / shards
    chi_square = float(((found - expected) ** 2 / expected).sum())
    # shards - 1 degrees of freedom: that is the mean, and the deviation sqrt(2 (shards - 1)); chance never makes eight.
    assert chi_square < (shards - 1) + 8 * (2 * (shards - 1)) ** 0.5 + 20


def test_another_volume_spreads_them_otherwise():
    keys = keys_of(20_000)
    ours = Router(KINDS, UUID, 8).shards_of(0x02, keys)
    for bit in (0, 64, 127):
        other = bytearray(UUID)
        other[bit // 8] ^= 1 << bit % 8
        same = (ours == Router(KINDS, bytes(other), 8).shards_of(0x02, keys)).mean()
        assert 0.1 < same < 0.15  # one in eight by chance


def test_another_type_spreads_them_otherwise():
    types = KeyTypes({0x02: (0, 32), 0x10: (0, 32)})
    keys = keys_of(20_000)
    router = Router(types, UUID, 8)
    same = (router.shards_of(0x02, keys) == router.shards_of(0x10, keys)).mean()
    assert 0.1 < same < 0.15


def test_payloads_are_routed_by_the_key_in_them_in_order():
    payloads = keys_of(5000, 48)
    payloads[:, 0] = 77
    types = KeyTypes({0x40: (3, 20)})
    router = Router(types, UUID, 5)
    stream, counts = router.route(0x40, payloads)
    shards = router.shards_of(0x40, np.ascontiguousarray(payloads[:, 3:23]))
    assert counts.tolist() == np.bincount(shards, minlength=5).tolist()
    entries = stream.reshape(-1, 50)
    assert set(entries[:, 0].tolist()) == {50}
    assert set(entries[:, 1].tolist()) == {0x40}
    assert (entries[:, 2:] == payloads[np.argsort(shards, kind="stable")]).all()


def test_nothing_is_routed_to_nowhere():
    stream, counts = Router(KINDS, UUID, 3).route(0x02, np.zeros((0, 48), np.uint8))
    assert (len(stream), counts.tolist()) == (0, [0, 0, 0])


@pytest.mark.parametrize(
    "refused",
    [
        lambda router: router.shard(0x02, bytes(31)),
        lambda router: router.shard(0x30, bytes(32)),
        lambda router: router.shards_of(0x02, np.zeros((1, 33), np.uint8)),
        lambda router: router.shards_of(0x100, np.zeros((1, 32), np.uint8)),
        lambda router: router.shards_of(-1, np.zeros((1, 32), np.uint8)),
        lambda router: router.route(0x30, np.zeros((1, 48), np.uint8)),
        lambda router: router.route(0x02, np.zeros((1, 31), np.uint8)),
        lambda router: router.route(0x02, np.zeros((1, 253), np.uint8)),
    ],
)
def test_a_key_of_another_size_or_type_is_refused(refused):
    with pytest.raises(EntryError):
        refused(Router(KINDS, UUID, 8))


@pytest.mark.parametrize(
    "keys", [{256: (0, 4)}, {-1: (0, 4)}, {2: (-1, 4)}, {2: (0, 0)}, {2: (0, 253)}, {2: (252, 1)}]
)
def test_a_key_that_cannot_be_is_refused(keys):
    with pytest.raises(ValueError, match="key"):
        KeyTypes(keys)
