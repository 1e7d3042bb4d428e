"""One content, one behaviour, one set of bytes on every medium; and one writer."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from real_media import child
from store_media import DEVICES, KINDS, Medium, create_settled, kinds, medium, open_settled
from store_records import assert_holds, digest, hashes, info, rows

import siltstone
from siltstone.errors import BatchTooLargeError, LockedError, SiltstoneError
from siltstone.volume.allocator import end_of_extents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# ---- the same calls, the same answers, the same bytes


class Script:
    """Calls on a store, each with its answer in `answers`, through lives that end well and lives that do not."""

    def __init__(self, on: Medium, host: Any) -> None:
        self.on = on
        self.host = host
        self.answers: list[tuple[str, object]] = []
        create_settled(on, host, shards=3)
        self.store = open_settled(on, host)

    def say(self, what: str, answer: object) -> None:
        """Keep an answer; arrays as their sum."""
        if isinstance(answer, np.ndarray):
            answer = (answer,)
        if isinstance(answer, tuple):
            answer = tuple(
                (each.dtype.str, each.shape, hashlib.sha256(each.tobytes()).hexdigest())
                if isinstance(each, np.ndarray)
                else each
                for each in answer
            )
        self.answers.append((what, answer))

    def refused(self, call: Callable[[], object]) -> str:
        """How a call is refused."""
        with pytest.raises(SiltstoneError) as caught:
            call()
        return type(caught.value).__name__

    def look(self) -> None:
        """Ask everything that can be asked."""
        store = self.store
        self.say("len", len(store))
        self.say("get_many", store.get_many(hashes(range(60_000))))
        self.say("get", store.get(digest(17)))
        self.say("get of nothing", store.get(digest(1 << 40)))
        facts = dataclasses.asdict(store.info())
        for differs in ("url", "volume_bytes"):
            del facts[differs]
        self.say("info", facts)
        self.say("recovery", store.recovery)

    def change(self, version: int) -> None:
        """Put, delete, batch, flush."""
        store = self.store
        store.put_many(*rows(range(30_000), version))
        self.say("delete", store.delete(digest(17)))
        self.say("delete again", store.delete(digest(17)))
        store.flush()
        self.say("delete_many", store.delete_many(hashes(range(0, 40_000, 3))))
        with store.batch() as batch:
            batch.put_many(*rows(range(50_000, 52_000), version))
            batch.delete_many(hashes(range(50_000, 50_100)))
        store.put(info(17, version))
        self.say("float", self.refused(lambda: store.put_many(hashes([1]), [1.5], [1])))
        self.say("huge", self.refused(self.huge_batch))
        store._core.shards.group.tick()
        store.flush()
        store.put_many(*rows(range(52_000, 54_000), version))

    def huge_batch(self) -> None:
        """More than a journal can take."""
        count = 1_400_000
        one_hash = np.broadcast_to(np.arange(32, dtype=np.uint8), (count, 32))
        with self.store.batch() as batch:
            batch.put_many(one_hash, np.zeros(count, int), np.zeros(count, int))

    def run(self) -> list[tuple[str, object]]:
        """All of it; the answers."""
        for life, ending in enumerate(["close", "abandon", "close", "abandon"]):
            self.look()
            self.change(life)
            self.look()
            self.store.close() if ending == "close" else self.store._core.abandon()
            self.store = open_settled(self.on, self.host, read_only=True)
            self.look()
            self.say("read-only", self.refused(lambda: self.store.put(info(1))))
            self.store.close()
            self.store = open_settled(self.on, self.host)
        self.look()
        self.store.close()
        return self.answers

    def contents(self) -> bytes:
        """The bytes of the volume up to the end of its extents."""
        store = open_settled(self.on, self.host, read_only=True)
        end = end_of_extents(store._core.volume.superblock)
        store.close()
        return self.on.contents()[:end]


@pytest.fixture(scope="module")
def reference(host, tmp_path_factory) -> tuple[list[tuple[str, object]], bytes]:
    """What the script answers in memory, and the bytes that it leaves."""
    with medium("memory", tmp_path_factory.mktemp("reference")) as on:
        script = Script(on, host)
        return script.run(), script.contents()


@kinds(*KINDS)
def test_every_medium_gives_the_same_answers_and_the_same_bytes(kind, tmp_path, host, reference):
    answers, contents = reference
    with medium(kind, tmp_path) as on:
        script = Script(on, host)
        given = script.run()
        left = script.contents()
    assert len(given) == len(answers)
    for number, (mine, theirs) in enumerate(zip(given, answers, strict=True)):
        assert mine == theirs, f"answer {number} differs"
    # All media here are zero where they were never written.
    assert len(left) == len(contents)
    assert left == contents, f"first byte that differs: {first_difference(left, contents)}"


def first_difference(left: bytes, right: bytes) -> int:
    both = np.frombuffer(left, np.uint8), np.frombuffer(right, np.uint8)
    return int(np.flatnonzero(both[0] != both[1])[0])


def test_the_reference_is_not_trivial(reference):
    answers, contents = reference
    assert dict(answers)["len"] > 20_000
    assert dict(answers)["huge"] == BatchTooLargeError.__name__
    states = {extent["state"] for what, facts in answers if what == "info" for extent in facts["extents"]}
    assert {"active", "closed", "free"} <= states
    assert any(found.reason for what, found_all in answers if what == "recovery" for found in found_all)
    assert len(contents) > 4 << 20


@kinds(*DEVICES)
def test_a_device_is_formatted_only_when_asked_for(kind, tmp_path):
    with medium(kind, tmp_path) as on:
        before = on.contents()
        with pytest.raises(SiltstoneError):
            siltstone.open(on.target)
        assert on.contents() == before
        siltstone.create(on.target, erase_block=64 * 1024)
        with siltstone.open(on.target) as store:
            store.put(info(1))
        with siltstone.open(on.target, read_only=True) as store:
            assert_holds(store, [1])


# ---- one writer

HOLDER = """
import sys, siltstone
# With workers it would let readers in.
store = siltstone.open(sys.argv[1], workers=0, read_only=sys.argv[2] == "read")
print("open", flush=True)
sys.stdin.read()
store.close()
"""
LOCKABLE = ["file", "tmpfs", "loop-512-direct", "loop-4096-direct", "zram"]


@pytest.fixture
def made(kind, tmp_path) -> Iterator[Medium]:
    """A store with a record, closed, on a medium of this kind."""
    with medium(kind, tmp_path) as on:
        siltstone.create(on.target, erase_block=64 * 1024)
        with siltstone.open(on.target) as store:
            store.put(info(1))
        yield on


def hold(on: Medium, how: str):
    """A process that has the store open."""
    return child(HOLDER, on.target, how)


def assert_locked(on: Medium, holder: int, **options: object) -> None:
    with pytest.raises(LockedError) as caught:
        siltstone.open(on.target, **options)
    assert on.target in str(caught.value)
    assert f"process {holder} " in caught.value.holder
    assert f"process {holder} " in str(caught.value)


@kinds(*LOCKABLE, "memory")
def test_a_second_writer_in_this_process_is_told_who_holds_it(kind, made):
    with siltstone.open(made.target) as store:
        before = made.contents() if kind != "memory" else b""
        for options in ({}, {"read_only": True}):
            assert_locked(made, os.getpid(), **options)
        with pytest.raises(LockedError):
            siltstone.create(made.target, overwrite=True)
        if before:
            assert made.contents() == before
        store.put(info(2))
        store.flush()
    with siltstone.open(made.target) as store:
        assert_holds(store, [1, 2])


@kinds(*LOCKABLE)
def test_a_writer_in_another_process_keeps_everybody_out(kind, made):
    with hold(made, "write") as holder:
        assert holder.stdout.readline() == "open\n"
        before = made.contents()
        assert_locked(made, holder.pid)
        assert_locked(made, holder.pid, read_only=True)
        with pytest.raises(LockedError):
            siltstone.create(made.target, overwrite=True)
        assert made.contents() == before
        holder.communicate(timeout=60)
        assert holder.returncode == 0
    with siltstone.open(made.target) as store:
        assert_holds(store, [1])


@kinds(*LOCKABLE)
def test_a_writer_that_is_killed_keeps_nobody_out(kind, made):
    with hold(made, "write") as holder:
        assert holder.stdout.readline() == "open\n"
        holder.kill()
        holder.wait()
        with siltstone.open(made.target) as store:
            assert_holds(store, [1])


@kinds(*LOCKABLE)
def test_readers_share_a_store_and_keep_writers_out(kind, made):
    with hold(made, "read") as other:
        assert other.stdout.readline() == "open\n"
        with siltstone.open(made.target, read_only=True) as store:
            assert_holds(store, [1])
            with siltstone.open(made.target, read_only=True) as second:
                assert_holds(second, [1])
        assert_locked(made, other.pid)
        other.communicate(timeout=60)
        assert other.returncode == 0
    siltstone.open(made.target).close()


@kinds("memory")
def test_readers_of_a_memory_share_it(kind, made):
    with siltstone.open(made.target, read_only=True) as first:
        with siltstone.open(made.target, read_only=True) as second:
            assert_holds(first, [1])
            assert_holds(second, [1])
        assert_locked(made, os.getpid())
    siltstone.open(made.target).close()


def test_the_lock_goes_with_the_file_when_it_is_renamed(tmp_path):
    path = tmp_path / "store.silt"
    with siltstone.open(path, erase_block=64 * 1024) as store:
        store.put(info(1))
        store.flush()
        beside = tmp_path / "beside"
        path.rename(beside)
        with pytest.raises(LockedError):
            siltstone.open(beside)
        store.put(info(2))
        store.flush()
    with siltstone.open(beside) as store:
        assert_holds(store, [1, 2])
