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
#: commits of one turn, and how many of them nobody counts: the store has been idle
TURN = 120
AWAKE = 20


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

            found["put_many of 10,000"] = rate(put_many, len(self.hashes))
            found["get_many of 10,000"] = rate(get_many, LOOKUPS)
            found["get"] = rate(get, SINGLE)
        return found

    def commits(self, folder: Path, workers: int) -> list[tuple[float, float]]:
        """Commits of one record a second, without workers and with, by turns in two stores that are open meanwhile.

        By short turns: what else a machine does makes one commit several times as slow as the next.
        """
        pairs = []
        with (
            siltstone.open(folder / "none.silt", workers=0) as none,
            siltstone.open(folder / "some.silt", workers=workers) as some,
        ):

            def commit(store: siltstone.Store, records: list[HashInfo]) -> float:
                for record in records[:AWAKE]:
                    store.put(record)
                    store.flush()
                start = time.perf_counter()
                for record in records[AWAKE:]:
                    store.put(record)
                    store.flush()
                return (len(records) - AWAKE) / (time.perf_counter() - start)

            for at in range(0, len(self.records), TURN):
                part = self.records[at : at + TURN]
                pairs.append((commit(none, part), commit(some, part)))
        return pairs


def rate(work: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--turns", type=int, default=100, help="of 100 commits each")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    work = Work(options.records, options.turns * TURN)
    rates: dict[int, list[dict[str, float]]] = {}
    for _repetition in range(options.reps):
        for workers in [0, *options.workers]:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                rates.setdefault(workers, []).append(work.rates(Path(folder, "store.silt"), workers))
    for name in rates[0][0]:
        print(f"{name}:")
        for workers in options.workers:
            compare(
                workers,
                [(base[name], mine[name]) for base, mine in zip(rates[0], rates[workers], strict=True)],
            )
    print("put + flush:")
    for workers in options.workers:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            compare(workers, work.commits(Path(folder), workers))


def compare(workers: int, pairs: list[tuple[float, float]]) -> None:
    ratios = [mine / base for base, mine in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    print(
        f"    {workers} workers: {statistics.median(mine for _base, mine in pairs):,.0f}/s,"
        f" none {statistics.median(base for base, _mine in pairs):,.0f}/s,"
        f" x{middle:.2f} ({low:.2f} to {high:.2f} for half of {len(ratios)} pairs)"
    )


if __name__ == "__main__":
    main()
