"""What the system says of a worker process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from siltstone.plugin.hosting import WorkerInfo

if TYPE_CHECKING:
    from siltstone_workers.keeper import Keeper


def worker_info(keeper: Keeper) -> WorkerInfo:
    """What is known of the worker of a place, as it is now."""
    process = keeper.process
    return with_usage(
        WorkerInfo(
            number=keeper.number,
            pid=None if process is None else process.pid,
            state=keeper.state.value,
            shards=keeper.shards,
            restarts=keeper.restarts,
            queued_bytes=sum(ledger.queued_bytes for ledger in keeper.ledgers.values()),
            last_error=keeper.last_error,
        )
    )


def with_usage(worker: WorkerInfo) -> WorkerInfo:
    """The same, with memory, processor time, transfers and threads, as far as the system tells them."""
    import psutil

    if worker.pid is None:
        return worker
    try:
        process = psutil.Process(worker.pid)
        with process.oneshot():
            cpu = process.cpu_times()
            worker = replace(
                worker,
                memory_bytes=process.memory_info().rss,
                cpu_seconds=cpu.user + cpu.system,
                threads=process.num_threads(),
            )
            transfers = process.io_counters()
    except (psutil.Error, OSError):
        # It has just ended, or its transfers are not ours to see.
        return worker
    return replace(worker, read_bytes=transfers.read_bytes, written_bytes=transfers.write_bytes)
