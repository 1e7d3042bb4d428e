"""T7: nothing of an earlier life comes back where a journal is recycled or a device formatted.

Nothing is erased to be correct, so a lost, partial or reordered erase is the usual case here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from journal_life import OTHER_UUID, PORTS
from medium import Image, Medium
from recycle_battery import check_format, check_new_store, check_recycled

from siltstone.format.constants import ERASE_BLOCK_MIN
from siltstone.volume.volume import Volume

# 50,000 cases in all, at each size of the battery.


@pytest.mark.parametrize("seed", range(3))
def test_a_new_life_in_an_extent_full_of_old_ones(seed, full_battery):
    states = 15_000 if full_battery else 3_000
    assert check_recycled(states, seed) >= states


def test_a_format_over_an_old_store(full_battery):
    states = 4_000 if full_battery else 1_000
    ended = check_format(states)
    assert sum(ended.values()) >= states
    assert all(ended.values())


def test_a_new_store_on_a_device_full_of_an_old_one(full_battery):
    states = 1_000 if full_battery else 300
    assert check_new_store(states) >= states


def test_a_format_takes_a_new_uuid():
    """What is written above stands on it: two volumes with one uuid could not be told apart."""
    asked = []

    def random_bytes(size: int) -> bytes:
        asked.append(size)
        return OTHER_UUID[:size]

    medium = Medium(Image.blank(4 * ERASE_BLOCK_MIN))
    Volume.create(medium, shards=1, ports=PORTS)
    volume = Volume.create(medium, shards=1, ports=replace(PORTS, random_bytes=random_bytes))
    assert asked == [16]
    assert volume.superblock.uuid == OTHER_UUID
