"""Hash stores by themselves, in memory: building, looking up, merging, and what the filter costs and lets through.

Run it as ``python benchmarks/hash_store.py``; `--records` for another size. Pages are in memory and verified before
lookups are timed; the first round of lookups, which verifies them, stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from siltstone.format.seal import journal_key
from siltstone.hash_store.builder import HashStoreBuilder
from siltstone.hash_store.extent import plan
from siltstone.hash_store.merging import Merging
from siltstone.hash_store.sorting import sort_entries
from siltstone.hash_store.view import HashStoreView
from siltstone.index.types import KeyTypes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

HASH, ENTRY, BATCH = 0x02, 50, 10_000
SECRET = bytes(range(16))
TYPES = KeyTypes({HASH: (0, 32)})
KEY = journal_key(SECRET, 7, 9)


def packed(keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Entries of 50 bytes with these keys."""
    entries = np.zeros((len(keys), ENTRY), np.uint8)
    entries[:, 0], entries[:, 1], entries[:, 2:34] = ENTRY, HASH, keys
    entries[:, 34:42] = np.arange(len(keys), dtype=">u8").view(np.uint8).reshape(-1, 8)
    return entries.reshape(-1)


def build(streams: Iterable[NDArray[np.uint8]], records: int) -> tuple[HashStoreView, float]:
    """A hash store in memory, and how long its pages and filter took [s]."""
    extent = np.zeros(plan(records, records * ENTRY, ENTRY) * 4096, np.uint8)
    # Touched before the clock runs: what is measured is not the kernel that gives the memory.
    extent[::4096] = 1

    def write(offset: int, data: memoryview) -> None:
        extent[offset : offset + len(data)] = data

    start = time.perf_counter()
    builder = HashStoreBuilder(
        KEY, 9, TYPES, SECRET, write, entries_max=records, clusters=len(extent) // 4096
    )
    for stream in streams:
        builder.add(stream)
    builder.finish()
    elapsed = time.perf_counter() - start
    return HashStoreView(extent, KEY, TYPES, SECRET), elapsed


def lookups(view: HashStoreView, keys: NDArray[np.uint8]) -> tuple[float, float]:
    """Lookups a second in batches, and the part of them that found something."""
    found = 0
    start = time.perf_counter()
    for at in range(0, len(keys), BATCH):
        states, _entries = view.find_many(HASH, keys[at : at + BATCH], ENTRY)
        found += int(np.count_nonzero(states))
    return len(keys) / (time.perf_counter() - start), found / len(keys)


def merged_of(views: Iterable[HashStoreView]) -> Iterator[NDArray[np.uint8]]:
    """All that a merge of some hash stores yields."""
    merging = Merging([[(view, 0, view.records, view.tombstones)] for view in views])
    return merging.slice(1 << 40, 1 << 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_250_000)
    parser.add_argument("--merged", type=int, default=300_000, help="records of each of four stores")
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    keys = random.integers(0, 256, (options.records, 32), np.uint8)
    journal = packed(keys)

    rates = []
    for _ in range(options.reps):
        start = time.perf_counter()
        ordered = sort_entries(TYPES, SECRET, [journal])
        sorting = time.perf_counter() - start
        view, building = build([ordered], options.records)
        rates.append(
            (
                options.records / sorting,
                options.records / building,
                options.records / (sorting + building),
            )
        )
    for name, rate in zip(
        ("sort", "pages and filter", "sort, pages and filter"), zip(*rates, strict=False), strict=True
    ):
        print(f"{name}: {statistics.median(rate) / 1e6:.2f} M records/s")

    header = view.header
    print(
        f"filter: {8 * header.filter_shape.cells / options.records:.3f} bits/record, with its pages"
        f" {8 * 4096 * header.filter_pages / options.records:.3f};"
        f" in memory {8 * view.memory_bytes / options.records:.3f};"
        f" extent {4096 * header.clusters / options.records:.2f} bytes/record"
    )
    absent = random.integers(0, 256, (1_000_000, 32), np.uint8)
    wanted = keys[random.integers(0, options.records, 1_000_000)]
    first, _ = lookups(view, wanted)
    hits = [lookups(view, wanted) for _ in range(options.reps)]
    misses = [lookups(view, absent) for _ in range(options.reps)]
    assert all(part == 1 for _rate, part in hits)
    assert all(part == 0 for _rate, part in misses)
    print(
        f"hits: {statistics.median(rate for rate, _ in hits) / 1e6:.2f} M/s, the first time {first / 1e6:.2f}"
    )
    print(f"misses: {statistics.median(rate for rate, _ in misses) / 1e6:.2f} M/s")
    print(f"false positives: {100 * np.mean(view.may_hold(HASH, absent)):.3f} % of 1,000,000")

    views = [
        build([sort_entries(TYPES, SECRET, [packed(part)])], options.merged)[0]
        for part in np.split(random.integers(0, 256, (4 * options.merged, 32), np.uint8), 4)
    ]
    merging, whole = [], []
    for _ in range(options.reps):
        start = time.perf_counter()
        merged = sum(len(chunk) for chunk in merged_of(views)) // ENTRY
        merging.append(merged / (time.perf_counter() - start))
        start = time.perf_counter()
        build(merged_of(views), 4 * options.merged)
        whole.append(merged / (time.perf_counter() - start))
    print(f"merge of 4 stores of {options.merged:,}: {statistics.median(merging) / 1e6:.2f} M records/s")
    print(f"merge into a new store: {statistics.median(whole) / 1e6:.2f} M records/s")


if __name__ == "__main__":
    main()
