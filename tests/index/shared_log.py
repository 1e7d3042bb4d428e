"""A shard whose index and journals lie in shared memory, and the process that writes them when it is told to.

Run as a program: `shared_log.py INDEX VOLUME` with two descriptors; reads one command a line, answers each with one
line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from indexed_log import CLUSTER, HASH, SECRET, TYPES, IndexedLog, deletion, packed

from siltstone.index.types import KeyTypes
from siltstone.index.view import IndexView
from siltstone.log_store.memory import IndexSize, shared_memory
from siltstone.volume.mapping import Mapping

SIZE = IndexSize(segments=2, window_bytes=1 << 19, records=50_000)
EXTENT = 64 * CLUSTER
EXTENTS = 64
KEYS = 20_000


def all_keys() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (KEYS, 32), np.uint8)


def entries_for(keys: np.ndarray, version: int) -> np.ndarray:
    """Packed entries whose 16 bytes behind the key are the version and a word made of key and version."""
    rows = np.empty((len(keys), 50), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2:34] = 50, HASH, keys
    words = np.full(len(keys), version, np.uint64)
    rows[:, 34:42] = words.view(np.uint8).reshape(-1, 8)
    rows[:, 42:] = rows[:, 2:10] ^ rows[:, 34:42]
    return rows.ravel()


def versions_of(keys: np.ndarray, payloads: np.ndarray) -> np.ndarray:
    """The versions of what was found; AssertionError for a payload that was never written."""
    assert (payloads[:, :32] == keys).all()
    assert (payloads[:, 40:] == (payloads[:, :8] ^ payloads[:, 32:40])).all()
    return np.ascontiguousarray(payloads[:, 32:40]).view(np.uint64)[:, 0]


class SharedLog(IndexedLog):
    """The writer: journals take turns in the extents of a volume, and numbers are used again."""

    def __init__(self, index: int, volume: int) -> None:
        self.volume = volume
        self.made = 0
        self.numbers: list[int] = []
        memory = SIZE.map_shared(index, writable=True)
        super().__init__(SIZE.segments, SIZE.window_bytes, EXTENT, shared=True, memory=memory)

    def new_journal(self) -> tuple[int, Any, int]:
        offset = self.made % EXTENTS * EXTENT
        self.made += 1
        number = next(free for free in range(EXTENTS) if free not in self.numbers)
        self.numbers.append(number)
        return number, memoryview(Mapping(self.volume, offset, EXTENT, writable=True)), offset

    def forget_old(self) -> None:
        """Detach every journal but the active one."""
        for number in self.numbers[:-1]:
            self.index.detach(number)
        del self.numbers[:-1]

    def churn(self, keys: np.ndarray, first: int, rounds: int) -> None:
        """Put the same keys again and again, in journals that are detached behind it and come again elsewhere."""
        for version in range(first, first + rounds):
            for start in range(0, len(keys), 40):
                self.apply(entries_for(keys[start : start + 40], version))
            if version % 3 == 0:
                self.roll()
                self.apply(entries_for(keys, version))
                self.forget_old()


def serve(index: int, volume: int) -> None:
    """Do what is asked on standard input, line by line."""
    log, keys = SharedLog(index, volume), all_keys()
    print("ready", flush=True)
    for line in sys.stdin:
        what, *numbers = json.loads(line)
        if what == "put":
            start, count, version = numbers
            for at in range(start, start + count, 1000):
                log.apply(entries_for(keys[at : min(at + 1000, start + count)], version))
        elif what == "delete":
            start, count = numbers
            log.apply(packed(deletion(HASH, key.tobytes()) for key in keys[start : start + count]))
        elif what == "churn":
            count, first, rounds = numbers
            log.churn(keys[:count], first, rounds)
        elif what == "roll":
            log.roll()
        elif what == "forget":
            log.forget_old()
        print(json.dumps([log.index.records, log.made]), flush=True)


class Writer:
    """Another process that writes a SharedLog, and what this process needs to look into it."""

    def __init__(self) -> None:
        self.index = SIZE.share()
        self.volume = shared_memory("volume", EXTENTS * EXTENT)
        self.mapped: list[tuple[int, int]] = []
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.index), str(self.volume)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(self.index, self.volume),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, *command: str | int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def end(self) -> list[int]:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, list)
        return answer

    def do(self, *command: str | int) -> list[int]:
        self.begin(*command)
        return self.end()

    def map(self, number: int, offset: int, length: int) -> Mapping:
        """Map an extent of the volume for reading."""
        assert offset % EXTENT == 0
        assert length == EXTENT
        self.mapped.append((number, offset))
        return Mapping(self.volume, offset, length)

    def view(self) -> IndexView:
        memory = SIZE.map_shared(self.index, writable=False)
        return IndexView(memory, KeyTypes(TYPES), SECRET, SIZE.segments, SIZE.window_bytes, self.map)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(self.index)
        os.close(self.volume)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
