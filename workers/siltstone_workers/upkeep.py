"""What workers are asked to do for the space of all: to tidy up, and to make room where another finds none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.errors import DiskFullError, SiltstoneError
from siltstone.shard.space import closed_bytes
from siltstone_workers.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from siltstone.format.superblock import Superblock
    from siltstone.volume.volume import Volume
    from siltstone_workers.answers import Answer
    from siltstone_workers.keeper import Keeper
    from siltstone_workers.process import WorkerProcess

#: what others wait for a worker that is to make space
_PATIENCE_SECONDS = 10.0


def tidy(processes: Iterable[WorkerProcess], *, incarnate: bool) -> None:
    """See :meth:`siltstone.plugin.hosting.ShardHost.tidy`."""
    left = list(processes)
    begin = True
    while left:
        # Step by step: each answer comes within the deadline.
        asked = [(process, process.requests.ask(Kind.TIDY, incarnate, begin)) for process in left]
        left = [process for process, answer in asked if process.result(answer, Kind.TIDY) is not None]
        begin = False


def make_space(keepers: Sequence[Keeper], superblock: Superblock, *, deletes: bool) -> bool:
    """Let a worker free something in its shards, first the one with the shard that holds most; whether one did."""

    def held(keeper: Keeper) -> int:
        return max(closed_bytes(superblock, shard) for shard in keeper.shards)

    for keeper in sorted(keepers, key=held, reverse=True):
        try:
            # One that starts knows no such request; one that is busy with its own upkeep is not waited for.
            process = keeper.serving(keeper.shards[0])
            if (
                process.result(
                    process.requests.ask(Kind.SPACE, deletes), Kind.SPACE, patience=_PATIENCE_SECONDS
                )
                is not None
            ):
                return True
        except SiltstoneError:
            continue  # what is amiss with it is for those to be told who want something of it
    return False


def result_with_space(
    process: WorkerProcess,
    answer: Answer | None,
    again: Callable[[], Answer | None],
    keepers: Sequence[Keeper],
    volume: Volume,
    kind: Kind,
) -> memoryview | bytes | None:
    """The bulk of an answer; where it says that the volume is full, of that of another try, once there is space.

    :param again: asks once more; None where it need not be waited for
    :param keepers: whose workers may make space
    """
    while answer is not None:
        try:
            return process.result(answer, kind)
        except DiskFullError:
            if not make_space(keepers, volume.superblock, deletes=kind == Kind.DELETE):
                raise
            answer = again()
    return None
