"""Durable commits a second: one caller that puts and flushes in a loop, against many asyncio tasks or threads that do.

Run it with a folder on the disk that is to be measured: ``python benchmarks/concurrent_commits.py FOLDER``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import siltstone
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


def many_threads(path: Path, chosen: list[HashInfo], threads: int, workers: int) -> float:
    left, taking = iter(chosen), threading.Lock()

    def one(store: siltstone.Store) -> None:
        while True:
            with taking:
                record = next(left, None)
            if record is None:
                return
            store.put(record)
            store.flush()

    with siltstone.open(path, workers=workers) as store, ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        for done in [pool.submit(one, store) for _ in range(threads)]:
            done.result()
        return len(chosen) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=64, help="and as many threads")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--reps", type=int, default=9)
    options = parser.parse_args()
    few, some, many = records(4000), records(16000), records(40000)
    ratios: dict[str, list[float]] = {"tasks": [], "threads": []}
    for number in range(options.reps):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            alone = one_caller(Path(folder, "one.silt"), few, options.workers)
            rates = {
                "tasks": asyncio.run(
                    many_tasks(Path(folder, "tasks.silt"), many, options.tasks, options.workers)
                ),
                "threads": many_threads(Path(folder, "threads.silt"), some, options.tasks, options.workers),
            }
        shown = [f"{number + 1}: one caller {alone:,.0f}/s"]
        for name, rate in rates.items():
            ratios[name].append(rate / alone)
            shown.append(f"{options.tasks} {name} {rate:,.0f}/s, x{rate / alone:.1f}")
        print("; ".join(shown))
    for name, each in ratios.items():
        print(f"{name}: median ratio {statistics.median(each):.1f}, {min(each):.1f} to {max(each):.1f}")


if __name__ == "__main__":
    main()
