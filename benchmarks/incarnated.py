"""The whole life of many records: put, a third put again, a third deleted, incarnated, all of them asked.

Run it with a folder on the disk that is to be measured: ``python benchmarks/incarnated.py FOLDER``. Every answer is
checked. Rates are of this machine in this run; bytes are of the process, its page cache not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

import siltstone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROWS = 10_000
ENTRY = 50


class Clock:
    """Says how fast something was."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def say(self, what: str, count: int) -> None:
        seconds = time.perf_counter() - self.start
        print(f"{what}: {count / seconds / 1e6:.2f} M/s ({seconds:.1f} s)", flush=True)


def blocks(records: int, kind: int = 0) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
    """The hashes of all records and their numbers, ROWS at a time; of another kind no hash is the same."""
    for start in range(0, records, ROWS):
        count = min(ROWS, records - start)
        hashes = np.random.default_rng((kind, start)).integers(0, 256, (count, 32), np.uint8)
        yield hashes, np.arange(start, start + count, dtype=np.uint64)


def thirds(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which records are put again, and which are deleted."""
    return numbers % np.uint64(3) == 1, numbers % np.uint64(3) == 2


def written() -> int:
    """Bytes that this process and its children gave the kernel to write, the zeros of a growing file among them."""
    me = psutil.Process()
    return sum(one.io_counters().write_chars for one in (me, *me.children(recursive=True)))


def ask(store: siltstone.Store, records: int, what: str) -> None:
    """Ask for every record in batches, in an order of its own, and check every answer."""
    generation = np.random.default_rng(5)
    spent = wrong = asked = 0.0
    for hashes, numbers in blocks(records):
        order = generation.permutation(len(hashes))
        keys = np.ascontiguousarray(hashes[order])
        start = time.perf_counter()
        found, physical, _logical = store.get_many(keys)
        spent += time.perf_counter() - start
        again, deleted = (each[order] for each in thirds(numbers))
        expected = np.where(deleted, 0, numbers[order] + again.astype(np.uint64))
        wrong += int((found == deleted).sum()) + int((physical != expected).sum())
        asked += len(keys)
    print(f"{what}: {asked / spent / 1e6:.2f} M/s, {wrong:.0f} wrong answers of {asked:,.0f}", flush=True)


def rates(store: siltstone.Store, records: int) -> None:
    """Hits and misses, batches of ROWS random keys."""
    chance = np.random.default_rng(6)
    chosen = [ROWS * int(block) for block in chance.integers(0, records // ROWS, min(100, records // ROWS))]
    sets = {
        "hits": [
            np.random.default_rng((0, start)).integers(0, 256, (ROWS, 32), np.uint8)[
                ~thirds(np.arange(start, start + ROWS, dtype=np.uint64))[1]
            ]
            for start in chosen
        ],
        "misses": [chance.integers(0, 256, (ROWS, 32), np.uint8) for _ in range(100)],
    }
    for name, batches in sets.items():
        mixed = np.concatenate(batches)
        chance.shuffle(mixed)
        parts = [np.ascontiguousarray(mixed[at : at + ROWS]) for at in range(0, len(mixed), ROWS)]
        for round_ in ("first", "again"):
            start = time.perf_counter()
            for keys in parts:
                store.get_many(keys)
            seconds = time.perf_counter() - start
            print(f"{name}, {round_}: {len(mixed) / seconds / 1e6:.2f} M/s", flush=True)


def live(folder: Path, records: int, workers: int, index_memory: int) -> None:
    """One life; prints as it goes."""
    path = folder / "store.silt"
    began = written()
    put = records + records // 3
    with siltstone.open(path, workers=workers, index_memory=index_memory) as store:
        clock = Clock()
        for hashes, numbers in blocks(records):
            store.put_many(hashes, numbers, numbers)
        store.flush()
        clock.say("put", records)
        clock = Clock()
        for hashes, numbers in blocks(records):
            again, _deleted = thirds(numbers)
            store.put_many(hashes[again], numbers[again] + np.uint64(1), numbers[again])
        store.flush()
        clock.say("put again", records // 3)
        clock = Clock()
        for hashes, numbers in blocks(records):
            _again, deleted = thirds(numbers)
            if not store.delete_many(hashes[deleted]).all():
                raise AssertionError("a record that was put was not there to be deleted")
        store.flush()
        clock.say("deleted", records // 3)
        ask(store, records, "asked before incarnate()")
        clock = Clock()
        store.incarnate()
        clock.say("incarnated and merged", records)
        info = store.info()
        alive = len(store)
        stores = [extent.length for extent in info.extents if extent.kind == "hash_store"]
        in_parts = f"{info.hash_stores} hash stores in {len(stores)} parts"
        print(
            f"{alive:,} records; index and filters {info.index_bytes / alive:.2f} B a record;"
            f" {in_parts}, {sum(stores) / alive:.1f} B a record ({sum(stores) / alive / ENTRY:.2f} x {ENTRY});"
            f" volume {info.volume_bytes / alive:.1f} B a record, free {info.free_bytes / alive:.1f}"
        )
        entries = put * ENTRY + records // 3 * 35
        total = written() - began
        print(
            f"written {total:,} bytes for {entries:,} bytes of entries: {total / entries:.2f} x", flush=True
        )
        ask(store, records, "asked")
        rates(store, records)
    first = next(blocks(records))[0]
    clock = Clock()
    with siltstone.open(path, workers=workers, index_memory=index_memory) as store:
        store.get(first[0])
        spent = time.perf_counter() - clock.start
        store.get_many(first)
        more = time.perf_counter() - clock.start - spent
        print(
            f"reopened, first answer: {spent * 1000:.1f} ms; {len(first):,} more, from pages that were not"
            f" looked at before: {more * 1000:.1f} ms"
        )
        ask(store, records, "asked after reopening")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--index-memory", type=int, default=256 << 20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        live(Path(folder), options.records, options.workers, options.index_memory)


if __name__ == "__main__":
    main()
