"""Openings that do the same in the same order every time, with few segments and checkpoints of few records."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from siltstone.format.constants import CLUSTER_SIZE
from siltstone.log_store import memory
from siltstone.shard import checkpoint, opening, sizing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def one_after_another(act: Callable[[Any], Any], items: Iterable[Any], _threads: int) -> list[Any]:
    """Stands in for threads: the same order every time, so that a failure can be repeated."""
    return [act(item) for item in items]


def in_small_parts() -> contextlib.AbstractContextManager[Any]:
    """Parts of hash stores that hold a page of records, so that few records lie in several."""
    return patch.object(sizing, "part_size", lambda _superblock, _shard: 4 * CLUSTER_SIZE)


@contextlib.contextmanager
def in_small() -> Iterator[None]:
    """One thread, an index of few segments, and checkpoints of few records."""
    with (
        patch.object(opening, "map_in_threads", one_after_another),
        patch.object(memory, "_SEGMENTS_A_SHARD_MIN", 2),
        patch.object(memory, "SEGMENTS_A_STORE", 2),
        patch.object(checkpoint, "CHECKPOINT_RECORDS_MIN", 0),
        patch.object(checkpoint, "map_in_threads", one_after_another),
    ):
        yield
