"""A volume that cannot grow, and nobody who keeps house: what was rolled from is known before space is taken."""

from __future__ import annotations

import numpy as np
import pytest
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, hashes, rows

from siltstone.errors import DiskFullError

KIB = 1024
STEP = 40


@pytest.fixture
def limited(path, host, faults):
    """Opens a store that may have so many bytes."""
    stores = []

    def limited(size, shards=1):
        def grow(_inner, wanted):
            if wanted > size:
                raise DiskFullError("faulty: no space", url="faulty", needed=wanted)

        create_settled(Medium(str(path)), host, shards=shards)
        faults.grow = grow
        stores.append(open_settled(Medium(f"faulty:{path}"), faults.host()))
        return stores[-1]

    yield limited
    for store in stores:
        store._core.abandon()


@pytest.mark.parametrize("kibibytes", [1536, 1664, 2048])
def test_what_is_overwritten_makes_its_own_space(limited, kibibytes):
    store = limited(kibibytes * KIB)
    for version in range(100):
        store.put_many(*rows(range(300), version))
    assert_holds(store, range(300), 99)


@pytest.mark.parametrize("kibibytes", [1536, 4096, 4352, 8192])
def test_all_that_was_put_can_be_deleted(limited, kibibytes):
    store, put = limited(kibibytes * KIB), 0
    with pytest.raises(DiskFullError):
        while True:
            store.put_many(*rows(range(put, put + STEP)))
            put += STEP
    for start in range(0, put, STEP):
        assert store.delete_many(hashes(range(start, start + STEP))).all()
    assert len(store) == 0


@pytest.mark.parametrize("kibibytes", [1792, 1856])
def test_what_another_shard_rolled_from_makes_space(limited, kibibytes):
    """It is all dead, and the superblock does not know yet that it is closed."""
    store = limited(kibibytes * KIB, shards=2)
    first = store._core.shards.group.shards[0]
    numbers = np.arange(20_000)
    of_first = store._core.router.shards_of(store._default.id, hashes(numbers)) == 0
    again, others = numbers[of_first][:1500], iter(numbers[~of_first])
    for version in range(12):
        store.put_many(*rows(again, version))
    assert first.turned

    def fill():
        with pytest.raises(DiskFullError):
            while True:
                store.put_many(*rows([next(others) for _number in range(STEP)]))

    fill()
    left = next(others)
    store.flush()
    fill()
    # A flush found nothing that had not been found: the first call after it was refused, too.
    assert next(others) <= left + 4 * STEP
    assert_holds(store, again, 11)
