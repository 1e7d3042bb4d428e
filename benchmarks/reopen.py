"""How long a store takes to give its first answer after it was closed cleanly, or its writer was killed.

Run it with a folder on the disk that is to be measured: ``python benchmarks/reopen.py FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

import siltstone
from siltstone import WorkerOptions

ROWS = 10_000


def hashes(records: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (records, 32), np.uint8)


def fill(path: str, records: int, end: str) -> None:
    """Put the records into a fresh store, in a process of its own, and close it or be killed."""
    keys, sectors = hashes(records), np.arange(records, dtype=np.uint64)
    store = siltstone.open(path, workers=0)
    for at in range(0, records, ROWS):
        part = slice(at, at + ROWS)
        store.put_many(keys[part], sectors[part], sectors[part])
    store.flush()
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.perf_counter()
    store.close()
    print(f"    close: {time.perf_counter() - start:.2f} s", flush=True)


def first_answer_ms(path: Path, workers: int, key: bytes, *, wait: bool = True) -> float:
    """From the call of `open` to the answer to one `get` [ms]."""
    start = time.perf_counter()
    store = siltstone.open(path, workers=workers, worker=WorkerOptions(wait=wait))
    found = store.get(key)
    taken = time.perf_counter() - start
    assert found is not None
    store.close()
    return 1e3 * taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, nargs="+", default=[2_000_000, 10_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--fill", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        path, records, end = options.fill
        fill(path, int(records), end)
        return
    for records in options.records:
        key = hashes(records)[records // 2].tobytes()
        for end in ("close", "kill"):
            print(f"{records:,} records, {end}")
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                path = Path(folder, "store.silt")
                command = [sys.executable, __file__, folder, "--fill", path, str(records), end]
                subprocess.run(command, check=end == "close")
                if end == "kill":
                    print(f"    first answer: {first_answer_ms(path, 0, key):,.1f} ms, once")
                    continue
                with siltstone.open(path, workers=0) as store:
                    extents = store.info().extents
                size = sum(extent.length for extent in extents if extent.kind == "checkpoint")
                print(f"    checkpoints: {size / records:.1f} bytes a record")
                for workers, wait in product(options.workers, (True, False)):
                    if wait or workers:
                        times = [
                            first_answer_ms(path, workers, key, wait=wait)
                            for _repetition in range(options.reps)
                        ]
                        print(
                            f"    first answer, {workers} workers{'' if wait else ', not waited for'}: median"
                            f" {statistics.median(times):,.1f} ms ({min(times):,.1f} to {max(times):,.1f})"
                        )


if __name__ == "__main__":
    main()
