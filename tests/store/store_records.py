"""Records by number: the same number gives the same hash everywhere, and no two numbers give one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from siltstone import HashInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Well scattered bits for each word, a different word for each (splitmix64)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def hashes(numbers: Iterable[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """The hashes of some records, (n, 32) uint8."""
    column = np.asarray(list(numbers) if isinstance(numbers, range) else numbers).astype(np.uint64)
    words = column[:, None] * np.uint64(4) + np.arange(4, dtype=np.uint64)
    return mixed(words).view(np.uint8).reshape(len(column), 32)


def digest(number: int) -> bytes:
    """The hash of one record."""
    return hashes([number])[0].tobytes()


def rows(
    numbers: Iterable[int] | NDArray[np.integer], version: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint64]]:
    """What put_many takes for some records; another version puts the same hashes with other places."""
    column = np.asarray(list(numbers) if isinstance(numbers, range) else numbers).astype(np.uint64)
    physical = mixed(column ^ np.uint64(version << 40))
    return hashes(column), physical, ~physical


def info(number: int, version: int = 0) -> HashInfo:
    """One record, as put takes it."""
    digests, physical, logical = rows([number], version)
    return HashInfo(digests[0].tobytes(), int(physical[0]), int(logical[0]))


def assert_holds(store, numbers, version=0):
    """Each of these records is there with the places of this version."""
    digests, physical, logical = rows(numbers, version)
    found, got_physical, got_logical = store.get_many(digests)
    assert found.all(), f"{int((~found).sum())} of {len(found)} are not there"
    np.testing.assert_array_equal(got_physical, physical)
    np.testing.assert_array_equal(got_logical, logical)


def assert_lacks(store, numbers):
    """None of these records is there."""
    found, physical, logical = store.get_many(hashes(numbers))
    assert not found.any(), f"{int(found.sum())} of {len(found)} are there"
    assert not physical.any()
    assert not logical.any()


def assert_versions(store, versions):
    """Record n is there with the places of versions[n], and is not there where that is negative."""
    found, physical, _logical = store.get_many(hashes(range(len(versions))))
    np.testing.assert_array_equal(found, versions >= 0)
    for version in np.unique(versions[versions >= 0]):
        numbers = np.flatnonzero(versions == version)
        np.testing.assert_array_equal(physical[numbers], rows(numbers, int(version))[1])
