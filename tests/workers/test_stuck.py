"""How long lookups have met a change: of one worker, and of the one that comes after it."""

from __future__ import annotations

import pytest

from siltstone.errors import ShardAwayError
from siltstone.index.types import KeyTypes
from siltstone.index.view import AwayIndex
from siltstone_workers import stuck
from siltstone_workers.lookups import Lookups
from siltstone_workers.stuck import StuckShards

TYPES, UUID = KeyTypes({2: (0, 32)}, (2,)), bytes(16)


class Clock:
    """Time that passes when it is told to [seconds]."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stuck, "time", made)
    return made


def test_a_change_that_is_met_again_and_again_is_one(clock: Clock) -> None:
    shards = StuckShards()
    assert shards.met(3) == 0
    for step in range(1, 5):
        clock.sleep(0.5)
        assert shards.met(3) == 0.5 * step
    assert shards.met(4) == 0
    # Nobody met it for a while: it had ended.
    clock.sleep(1.0)
    assert shards.met(3) == 0


class Worker:
    """A keeper and its process at once, which only notes that it was killed."""

    number = 0

    def __init__(self) -> None:
        self.killed: list[str] = []

    def serving(self, _shard: int) -> Worker:
        return self

    def kill(self, cause: str) -> None:
        self.killed.append(cause)


def test_a_worker_that_hangs_is_ended_and_the_next_one_has_its_own_time(clock: Clock) -> None:
    worker, first, second = Worker(), AwayIndex(TYPES, UUID), AwayIndex(TYPES, UUID)
    lookups = Lookups(1, TYPES, UUID, lambda _shard: worker, deadline=1.0)  # type: ignore[arg-type]
    lookups.show({0: first})
    begin = clock.now
    with pytest.raises(ShardAwayError):
        while True:
            lookups._stuck(0, first)
    assert len(worker.killed) == 1
    assert clock.now - begin > 1.0
    lookups.hide([0])
    lookups.show({0: second})
    # It waits, as at first.
    lookups._stuck(0, second)
    assert len(worker.killed) == 1
