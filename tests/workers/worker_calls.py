"""What happens to calls: each ends by its deadline, and programs that open stores, to be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from store_records import hashes

from siltstone.errors import OutcomeUnknownError
from siltstone.index.routing import Router
from siltstone.index.types import KeyTypes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import siltstone

SMALL = {"erase_block": 64 * 1024}
#: beyond its deadline a call may take what a loaded machine needs to end a process and start another [s]
SLACK_S = 20.0


def router_of(store: siltstone.Store) -> Router:
    """What says which shard a key is in, made from what the store says of itself."""
    told = store.info()
    return Router(KeyTypes({2: (0, 32)}), bytes.fromhex(told.uuid.replace("-", "")), told.shards)


def keys_of(store: siltstone.Store, worker: int, workers: int, count: int) -> list[int]:
    """Numbers of records that belong to the shards of one worker."""
    numbers = np.arange(count * workers * 4)
    shards = router_of(store).shards_of(2, hashes(numbers))
    return numbers[shards % workers == worker][:count].tolist()


@contextmanager
def ends_within(deadline: float) -> Iterator[None]:
    """Fail where the block takes much longer than a deadline: it hung, and something else woke it."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < deadline + SLACK_S, f"{took:.1f} s"


def program(source: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start a Python program with pipes for its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def settle(store: siltstone.Store) -> None:
    """Hear what was lost, once: after that a flush flushes."""
    try:
        store.flush()
    except OutcomeUnknownError:
        store.flush()
