"""kill -9 at any moment of a store's life: what was acknowledged is there, and no batch is there in part."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_model import History, random_operation, seen_in, shards_of_keys

import siltstone

SERVER = Path(__file__).with_name("kill_server.py")
#: lives of a store before a fresh one is made
LIVES_A_STORE = 12


class Victim:
    """The server that forks the children to kill, and the one that lives now."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.alive: int | None = None

    def start(self, **command: object) -> int:
        """Begin a life; the process id of the child."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        self.alive = int(self.expect("started"))
        return self.alive

    def line(self) -> tuple[str, str]:
        """What is said next."""
        line = self.process.stdout.readline()
        assert line, "the server has ended"
        word, _space, rest = line.strip().partition(" ")
        return word, rest

    def expect(self, wanted: str) -> str:
        """What is said next, which has to be this."""
        word, rest = self.line()
        assert word == wanted, f"{word} {rest} instead of {wanted}"
        return rest

    def kill(self, pid: int) -> list[int]:
        """Kill the child; the flushes that it still acknowledged."""
        os.kill(pid, signal.SIGKILL)
        flushed = []
        while True:
            word, rest = self.line()
            if word == "ended":
                self.alive = None
                self.process.stdin.write("\n")
                self.process.stdin.flush()
                # 0: it was only to open the store, and had done so before it could be killed.
                assert int(rest) in (-signal.SIGKILL, 0), f"the child ended by itself: {rest}"
                return flushed
            if word == "flushed":
                flushed.append(int(rest))


@pytest.fixture
def victim():
    process = subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        victim = Victim(process)
        yield victim
        if victim.alive is not None:
            os.kill(victim.alive, signal.SIGKILL)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.fixture
def rounds(full_battery):
    return 3000 if full_battery else 40


def spin(chance: random.Random, longest_s: float) -> None:
    """Wait for a while that is short more often than long."""
    end = time.perf_counter() + longest_s * chance.random() ** 2
    while time.perf_counter() < end:
        pass


def operations(seed: int, first: int, count: int):
    """What the child with this seed does: at least `count` operations, in runs that a flush follows."""
    chosen = np.random.default_rng(seed)
    made = []
    while len(made) <= count:
        for _operation in range(int(chosen.integers(1, 5))):
            made.append(random_operation(chosen, first + len(made)))
    return made


def one_life(victim, history, path, chance, *, number, shards, workers):
    """Let a child work and kill it; the history then holds what was acknowledged, and the rest as pending."""
    seed, first = chance.getrandbits(32), number * 10_000
    # Every other life it is incarnated, merged and packed all the time.
    pid = victim.start(
        path=str(path),
        seed=seed,
        first=first,
        shards=shards,
        workers=workers,
        only_open=False,
        tidied=number % 2 == 1,
    )
    acknowledged = 0
    if chance.random() < 0.1:
        # While it opens the store, or makes it.
        spin(chance, 0.03 if workers == 0 else 1.0)
    else:
        victim.expect("opened")
        for _flush in range(chance.randrange(8)):
            acknowledged = int(victim.expect("flushed")) - first
        spin(chance, 0.004)
    flushed = victim.kill(pid)
    if flushed:
        acknowledged = flushed[-1] - first
    # A child is never more than one run of operations ahead of its last flush.
    history.pending += operations(seed, first, acknowledged)
    history.settle(acknowledged)
    return acknowledged


@pytest.mark.parametrize(
    ("shards", "workers", "share"), [(1, 0, 1), (8, 0, 1), (64, 0, 0.2), (8, 2, 0.08), (2, 1, 0.04)]
)
def test_what_was_acknowledged_survives_a_kill(victim, quick_folder, host, shards, workers, share, rounds):
    rounds = max(6, int(rounds * share))
    base = random.randrange(1 << 32)
    print(f"base of the seeds: {base}")
    acknowledged = opened_in_vain = 0
    for number in range(rounds):
        chance = random.Random(base + number)
        if number % LIVES_A_STORE == 0:
            path, history = quick_folder / f"store{number}.silt", History()
        acknowledged += one_life(victim, history, path, chance, number=number, shards=shards, workers=workers)
        # Recovery is killed as well, before anybody sees what it found.
        for _opening in range(chance.choice([0, 0, 0, 1, 3])):
            pid = victim.start(path=str(path), workers=workers, only_open=True)
            spin(chance, 0.04 if workers == 0 else 1.0)
            victim.kill(pid)
            opened_in_vain += 1
        check(history, path, host, chance, at=f"round {number}, base {base}")
        if number % LIVES_A_STORE == LIVES_A_STORE - 1:
            path.unlink(missing_ok=True)
    # Else the loop tests nothing; of few rounds there may be hardly any that has some.
    assert acknowledged > (0 if rounds < 30 else 2 * rounds)
    assert opened_in_vain > rounds // 4 or rounds < 30


def check(history, path, host, chance, *, at):
    """Open what the killed child left, one way or the other, and compare."""
    if not path.exists():
        # Killed before the store was made: it is there whole or not at all.
        assert not history.base.any(), at
        history.pending.clear()
        return
    read_only = chance.random() < 0.5
    store = siltstone.open(path, plugins=host, workers=0, read_only=read_only)
    try:
        history.settle_as(seen_in(store), shards_of_keys(store))
        if not read_only and chance.random() < 0.5:
            # As if this process had died as well, right after the recovery.
            store._core.abandon()
    except AssertionError as error:
        raise AssertionError(f"{at}: {error}") from error
    finally:
        with contextlib.suppress(siltstone.ClosedError):
            store.close()
