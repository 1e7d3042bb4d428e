"""What a caller can say of worker processes, and how much memory a call takes however large it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from worker_stores import pids

import siltstone
from siltstone import WorkerOptions
from siltstone.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_niceness_and_affinity_are_those_that_were_asked_for(tmp_path: Path) -> None:
    processors = sorted(os.sched_getaffinity(0))
    options = WorkerOptions(niceness=3, affinity=[[processors[0]], [processors[-1]]])
    with siltstone.open(tmp_path / "store.silt", workers=3, worker=options) as store:
        found = [psutil.Process(pid) for pid in pids(store)]
        assert [process.nice() for process in found] == [psutil.Process().nice() + 3] * 3
        assert [process.cpu_affinity() for process in found] == [
            [processors[0]],
            [processors[-1]],
            [processors[0]],
        ]


def test_a_configuration_says_how_workers_are_run(tmp_path: Path) -> None:
    (tmp_path / "store.toml").write_text(
        f'[volume]\ntarget = "{tmp_path}/store.silt"\n[store]\nworkers = 1\n[workers]\nniceness = 2\n'
    )
    with siltstone.open(tmp_path / "store.toml") as store:
        (pid,) = pids(store)
        assert psutil.Process(pid).nice() == psutil.Process().nice() + 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline": 0},
        {"deadline": "soon"},
        {"niceness": 20},
        {"niceness": True},
        {"affinity": []},
        {"affinity": [[]]},
        {"affinity": [["0"]]},
        {"wait": 1},
    ],
)
def test_a_wrong_option_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        WorkerOptions(**wrong)  # type: ignore[arg-type]
    assert caught.value.key == f"workers.{next(iter(wrong))}"


def test_a_volume_that_only_this_process_can_have_takes_no_workers() -> None:
    with pytest.raises(ConfigError) as caught:
        siltstone.open("memory:", workers=2)
    assert "memory" in str(caught.value)
    assert "workers 2" in str(caught.value)
    siltstone.open("memory:").close()


def test_there_is_at_most_one_worker_a_shard(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=7, shards=3) as store:
        assert [worker.shards for worker in store.workers()] == [(0,), (1,), (2,)]


LARGE = """
import resource, sys
import numpy as np
import siltstone
count = 3_000_000
hashes = np.random.default_rng(1).integers(0, 256, (count, 32), np.uint8)
sectors = np.arange(count, dtype=np.uint64)
with siltstone.open(sys.argv[1], workers=1) as store:
    store.put_many(hashes[:50_000], sectors[:50_000], sectors[:50_000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.put_many(hashes, sectors, sectors)
    store.flush()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_call_of_any_size_takes_bounded_memory_besides_its_arrays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "store.silt")],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    # Its records are 150 MB; the index and the journals are the worker's.
    assert int(done.stdout) < 40 * 1024, f"{done.stdout} KiB"
