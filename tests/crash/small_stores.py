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
    from typing import Self


class OneAfterAnother:
    """Stands in for the thread pool of an opening: the same order every time, so that a failure can be repeated."""

    def __init__(self, threads: int) -> None:
        assert threads == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    @staticmethod
    def map(act: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(act, items)


def in_small_parts() -> contextlib.AbstractContextManager[Any]:
    """Parts of hash stores that hold a page of records, so that few records lie in several."""
    return patch.object(sizing, "part_size", lambda _superblock, _shard: 4 * CLUSTER_SIZE)


@contextlib.contextmanager
def in_small() -> Iterator[None]:
    """One thread, an index of few segments, and checkpoints of few records."""
    with (
        patch.object(opening, "ThreadPoolExecutor", OneAfterAnother),
        patch.object(memory, "_SEGMENTS_A_SHARD_MIN", 2),
        patch.object(memory, "SEGMENTS_A_STORE", 2),
        patch.object(checkpoint, "CHECKPOINT_RECORDS_MIN", 0),
        patch.object(checkpoint, "in_threads", lambda act, items: [act(item) for item in items]),
    ):
        yield
