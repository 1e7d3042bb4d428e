"""Attempts at a lock: what is held by others stays theirs, and nothing that interrupts one leaves it held."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest
from interrupts import Anywhere
from store_records import assert_holds, info

import siltstone
from siltstone.locks import Attempt

if TYPE_CHECKING:
    from pathlib import Path


def test_a_free_lock_is_held_for_the_block_and_free_behind_it() -> None:
    lock = threading.Lock()
    with Attempt(lock) as is_free:
        assert is_free
        assert lock.locked()
    assert not lock.locked()


def test_a_lock_that_somebody_has_stays_theirs() -> None:
    lock = threading.Lock()
    with lock:
        with Attempt(lock) as is_free:
            assert not is_free
        assert lock.locked()


def test_an_error_in_the_block_gives_the_lock_up() -> None:
    lock = threading.Lock()
    with pytest.raises(KeyboardInterrupt), Attempt(lock):
        raise KeyboardInterrupt
    assert not lock.locked()


def test_an_interrupt_anywhere_in_a_try_to_put_leaves_no_lock_of_a_shard_held(tmp_path: Path) -> None:
    for place in itertools.count(1):
        path = tmp_path / "store.silt"
        path.unlink(missing_ok=True)
        with siltstone.open(path, workers=0, shards=1) as store:
            (shard,) = store._core.shards.group.shards.values()
            was_interrupted = Anywhere(place).while_(lambda store=store: store.try_put(info(1)))
            assert not shard.lock.locked(), place
            if not was_interrupted:
                assert_holds(store, [1])
                break
            store._core.abandon()
            store._core = None
    assert place > 30
