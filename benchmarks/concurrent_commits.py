"""Durable commits a second: one caller that puts and flushes in a loop, against many asyncio tasks that do.

Run it with a folder on the disk that is to be measured: ``python benchmarks/concurrent_commits.py FOLDER``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from pathlib import Path

import siltstone.aio
from siltstone import HashInfo


def records(count: int) -> list[HashInfo]:
    return [HashInfo(hashlib.sha256(b"%d" % number).digest(), number, number) for number in range(count)]


def one_caller(path: Path, chosen: list[HashInfo], workers: int) -> float:
    with siltstone.open(path, workers=workers) as store:
        start = time.perf_counter()
        for record in chosen:
            store.put(record)
            store.flush()
        return len(chosen) / (time.perf_counter() - start)


async def many_tasks(path: Path, chosen: list[HashInfo], tasks: int, workers: int) -> float:
    left = iter(chosen)

    async def one() -> None:
        for record in left:
            await store.put(record)
            await store.flush()

    async with siltstone.aio.open(path, workers=workers) as store:
        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(tasks)))
        return len(chosen) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--reps", type=int, default=9)
    options = parser.parse_args()
    few, many = records(4000), records(40000)
    ratios = []
    for number in range(options.reps):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            alone = one_caller(Path(folder, "one.silt"), few, options.workers)
            together = asyncio.run(
                many_tasks(Path(folder, "many.silt"), many, options.tasks, options.workers)
            )
        ratios.append(together / alone)
        print(
            f"{number + 1}: one caller {alone:,.0f}/s, {options.tasks} tasks {together:,.0f}/s, x{ratios[-1]:.1f}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    main()
