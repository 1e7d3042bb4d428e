"""The filter by itself: it holds what was put in, and little else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from siltstone.errors import StateError
from siltstone.hash_store.filter import FuseFilter


def hashes_of(count: int, seed: int) -> np.ndarray:
    return np.unique(np.random.default_rng(seed).integers(0, 1 << 64, count, np.uint64))


def test_small_sets():
    for count in range(400):
        hashes = hashes_of(count, count)
        assert FuseFilter(hashes).may_hold(hashes).all()


@pytest.mark.parametrize("count", [1000, 30_000, 400_000])
def test_it_holds_all_and_little_else(count):
    hashes = hashes_of(count, 1)
    built = FuseFilter(hashes)
    assert built.may_hold(hashes).all()
    others = np.setdiff1d(hashes_of(1_000_000, 2), hashes)
    # 8 bits: one in 256, within three standard deviations.
    expected = len(others) / 256
    assert abs(np.count_nonzero(built.may_hold(others)) - expected) < 3 * math.sqrt(expected)


def test_the_same_hashes_make_the_same_filter():
    first, second = FuseFilter(hashes_of(5000, 3)), FuseFilter(hashes_of(5000, 3))
    assert first.seed == second.seed
    assert (first.cells == second.cells).all()


@pytest.mark.parametrize("few", ["near", "far"])
def test_hashes_that_are_not_random(few):
    hashes = np.arange(20_000, dtype=np.uint64) << np.uint64(0 if few == "near" else 45)
    built = FuseFilter(hashes)
    assert built.may_hold(hashes).all()


def test_equal_hashes_end_in_an_error():
    with pytest.raises(StateError, match="64 seeds"):
        FuseFilter(np.array([1, 2, 3, 2], np.uint64))


def test_a_seed_that_does_not_do_is_followed_by_another():
    seeds = {FuseFilter(hashes_of(count, count)).seed for count in range(2, 3000, 7)}
    assert len(seeds) > 1
