"""How much of a hash store is read for a hit whose page is not cached: bytes that came from the medium.

Run it as root with a folder on the disk that is to be measured: ``python benchmarks/cold_lookups.py FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import psutil

import siltstone

ROWS = 10_000
PAGE = 4096


def read() -> int:
    """Bytes that this process has fetched from media."""
    return int(psutil.Process().io_counters().read_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--lookups", type=int, default=2_000)
    options = parser.parse_args()
    hashes = np.random.default_rng(1).integers(0, 256, (options.records, 32), np.uint8)
    numbers = np.arange(options.records, dtype=np.uint64)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "store.silt"
        with siltstone.open(path, workers=0) as store:
            for at in range(0, options.records, ROWS):
                store.put_many(*(each[at : at + ROWS] for each in (hashes, numbers, numbers)))
            store.incarnate()
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        with siltstone.open(path, workers=0) as store:
            chosen = np.random.default_rng(2).choice(options.records, options.lookups, replace=False)
            absent = np.random.default_rng(3).integers(0, 256, (options.lookups, 32), np.uint8)
            for name, keys, expected in (("hits", hashes[chosen], True), ("misses", absent, False)):
                before = read()
                for key in keys:
                    if (store.get(bytes(key)) is not None) != expected:
                        raise AssertionError(f"a wrong answer among the {name}")
                pages = (read() - before) / PAGE / len(keys)
                print(f"{name}: {pages:.3f} pages of {PAGE} bytes read each, {len(keys):,} asked")


if __name__ == "__main__":
    main()
