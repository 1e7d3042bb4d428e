"""Runs the child whose stores are killed: a process that is loaded once and forks itself for each life.

Reads one command a line from its standard input, as JSON; writes what happens, one line each, to its
standard output. Started by test_kill.py, which kills the forks by their process id:

    started PID     a fork is there
    opened          its store is open
    flushed N       a flush returned after operation N - 1
    ended STATUS    the fork has ended: its exit status, or minus the signal that killed it; nobody else gets its
                    process id before the next line of the standard input
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback

import numpy as np
from store_model import random_operation

import siltstone
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.plugin.host import PluginHost
from siltstone.shard import sizing


def say(line: str) -> None:
    """Write one line, at once and whole: it counts also when this process is killed right after."""
    os.write(1, line.encode() + b"\n")


def tidy(store: siltstone.Store) -> None:
    """Incarnate, merge and pack without end, beside whoever puts."""
    try:
        while True:
            store.incarnate()
            store.pack()
    except BaseException:  # noqa: BLE001 - the parent has to see it
        traceback.print_exc()
        os._exit(1)


def work(
    host: PluginHost, path: str, seed: int, first: int, shards: int, workers: int, *, tidied: bool
) -> None:
    """Put, delete and flush until killed; operation n of a seed is always the same."""
    store = siltstone.open(path, shards=shards, erase_block=64 * 1024, workers=workers, plugins=host)
    say("opened")
    if tidied:
        threading.Thread(target=tidy, args=(store,), daemon=True).start()
    random = np.random.default_rng(seed)
    number = first
    while True:
        for _operation in range(int(random.integers(1, 5))):
            random_operation(random, number).run(store)
            number += 1
        store.flush()
        say(f"flushed {number}")


def only_open(host: PluginHost, path: str, workers: int) -> None:
    """Open and close: recovery, and a clean close, are what is killed."""
    siltstone.open(path, workers=workers, plugins=host).close()


def main() -> None:
    """Serve until the standard input ends."""
    # Some pages: few records lie in several parts of hash stores, and are merged in several slices; without workers.
    sizing.part_size = lambda _superblock, _shard: 6 * CLUSTER_SIZE
    host = PluginHost.load(None)
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                say(f"started {os.getpid()}")
                if command.pop("only_open"):
                    only_open(host, **command)
                else:
                    work(host, **command)
            except BaseException:  # noqa: BLE001 - nothing may get past the end of the fork
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        say(f"ended {ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status}")
        sys.stdin.readline()
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
