"""T1: whatever a power cut makes of the sectors that no flush covered, recovery finds what was flushed."""

from __future__ import annotations

import pytest
from sector_battery import SCENARIOS, check_scenario, check_superblocks


@pytest.mark.parametrize("ground", ["empty", "used"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_state_of_every_flush_of_a_journal(scenario, ground, full_battery):
    limit = 120_000 if full_battery else 700
    assert check_scenario(scenario, limit, seed=int(ground == "used")) > 50


def test_every_state_of_every_write_of_the_superblock(full_battery):
    assert check_superblocks(20_000 if full_battery else 200) > 1000
