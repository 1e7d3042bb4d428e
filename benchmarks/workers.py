"""What worker processes cost and bring: the same work with and without them, in turn, and the ratios.

Run it with a folder on the disk that is to be measured: ``python benchmarks/workers.py FOLDER``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import siltstone
from siltstone import HashInfo

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 10_000
LOOKUPS = 1_000_000
SINGLE = 100_000


class Work:
    """The same records and lookups for every store."""

    def __init__(self, records: int, commits: int) -> None:
        random = np.random.default_rng(1)
        self.hashes = random.integers(0, 256, (records, 32), np.uint8)
        self.sectors = np.arange(records, dtype=np.uint64)
        order = random.integers(0, records, LOOKUPS)
        self.hits = [
            np.ascontiguousarray(self.hashes[order[at : at + ROWS]]) for at in range(0, LOOKUPS, ROWS)
        ]
        self.keys = [bytes(key) for key in self.hashes[order[:SINGLE]]]
        self.records = [HashInfo(random.bytes(32), number, number) for number in range(commits)]

    def rates(self, path: Path, workers: int) -> dict[str, float]:
        """Operations a second of each kind, on a fresh store."""
        start = time.perf_counter()
        with siltstone.open(path, workers=workers) as store:
            found = {"opened": 1 / (time.perf_counter() - start)}

            def put_many() -> None:
                for at in range(0, len(self.hashes), ROWS):
                    part = slice(at, at + ROWS)
                    store.put_many(self.hashes[part], self.sectors[part], self.sectors[part])
                store.flush()

            def get_many() -> None:
                for keys in self.hits:
                    store.get_many(keys)

            def get() -> None:
                for key in self.keys:
                    store.get(key)

            def commit() -> None:
                for record in self.records:
                    store.put(record)
                    store.flush()

            found["put_many of 10,000"] = rate(put_many, len(self.hashes))
            found["get_many of 10,000"] = rate(get_many, LOOKUPS)
            found["get"] = rate(get, SINGLE)
            found["put + flush"] = rate(commit, len(self.records))
        return found


def rate(work: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    work = Work(options.records, options.commits)
    rates: dict[int, list[dict[str, float]]] = {}
    for _repetition in range(options.reps):
        for workers in [0, *options.workers]:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                rates.setdefault(workers, []).append(work.rates(Path(folder, "store.silt"), workers))
    for name in rates[0][0]:
        print(f"{name}: {statistics.median(each[name] for each in rates[0]):,.0f}/s with none")
        for workers in options.workers:
            pairs = [mine[name] / base[name] for mine, base in zip(rates[workers], rates[0], strict=True)]
            print(
                f"    {workers} workers: {statistics.median(each[name] for each in rates[workers]):,.0f}/s,"
                f" x{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
            )


if __name__ == "__main__":
    main()
