"""Packing, incarnating, merging that fail or are interrupted anywhere: nothing acknowledged is lost, nothing leaks."""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path

import pytest
from interrupts import Interrupt
from store_faults import Faults, at_call, failing, nothing
from store_media import Medium, create_settled, freeze, open_settled
from store_records import assert_holds, assert_lacks, hashes, rows

import siltstone
from siltstone.errors import DiskFullError, SiltstoneError
from siltstone.format.superblock import EMPTY, KIND_HASH_STORE

FULL = os.environ.get("SILTSTONE_BATTERY") == "full"
WHAT = ["pack", "incarnate", "merge"]
ENGINE = str(Path(siltstone.__file__).parent)


def act(store, what):
    group = store._core.shards.group
    return {"pack": group.upkeep.pack, "incarnate": group.upkeep.incarnate, "merge": group.upkeep.merge}[
        what
    ](group.shards[0])


@contextlib.contextmanager
def store_to_tidy(path, host, faults, what):
    """A store in which there is something to pack, to incarnate, or to merge; with keys in all places."""
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(f"faulty:{path}"), faults.host())
    for round_ in range(4):
        store.put_many(*rows(range(50 * round_, 300)))
        store.delete_many(hashes(range(250 + 10 * round_, 300)))
        if what == "merge" or round_ == 0:
            freeze(store)
            act(store, "incarnate")
    store.put_many(*rows(range(300, 800)))
    if what == "pack":
        freeze(store)
        store.put_many(*rows(range(350, 800), version=1))
        store.delete_many(hashes(range(300, 320)))
        store.put_many(*rows(range(350, 800)))
    freeze(store)
    if what == "pack":
        store.put_many(*rows(range(300, 320)))
    store.put_many(*rows(range(800, 900)))
    store.delete_many(hashes(range(250, 300)))
    store.flush()
    yield store
    for hook in ("read", "write", "flush", "discard", "grow"):
        setattr(faults, hook, nothing)
    store._core.abandon()


def assert_all_there(store):
    assert_holds(store, [*range(250), *range(300, 900)])
    assert_lacks(store, range(250, 300))
    assert len(store) >= 850


def finish(path, store, what):
    """Whatever happened: what is there is right, more of the same makes it no worse, and an opening finds it all."""
    assert_all_there(store)
    with contextlib.suppress(SiltstoneError):
        freeze(store)
        act(store, "incarnate")
        act(store, what)
    assert_all_there(store)
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert_all_there(reopened)
        left = [each for each in reopened.info().extents if each.state == EMPTY]
        assert len(left) <= 1  # a spare
        reopened.incarnate()
        assert_all_there(reopened)
        assert len(reopened) == 850


class WhereTheEngineCalls(Interrupt):
    """^C where the n-th function of the engine is entered, as the interpreter lets one in there."""

    def trace(self, frame, event, _argument):
        code = frame.f_code
        # Leaving a `with` block resumes its generator, which no ^C can come between.
        if event == "call" and ENGINE in code.co_filename and not code.co_flags & inspect.CO_GENERATOR:
            self.passes()


@pytest.mark.parametrize("what", WHAT)
def test_wherever_it_is_interrupted_nothing_is_lost(quick_folder, host, what):
    number = 1
    while True:
        path = quick_folder / f"{number}.silt"
        with store_to_tidy(path, host, Faults(), what) as store:
            over = not WhereTheEngineCalls(number).while_(lambda store=store: act(store, what))
            finish(path, store, what)
        path.unlink()
        if over:
            break
        number += 1 if FULL else 7
    assert number > 20


def disk_full(*_arguments):
    raise DiskFullError("faulty: no space", url="faulty", needed=1)


@pytest.mark.parametrize("fault", ["write", "flush", "grow", "full", "read"])
@pytest.mark.parametrize("what", WHAT)
def test_whatever_fails_nothing_is_lost(quick_folder, host, what, fault):
    number = 1
    while True:
        path = quick_folder / f"{number}.silt"
        faults = Faults()
        with store_to_tidy(path, host, faults, what) as store:
            hook = {"full": "write"}.get(fault, fault)
            do = disk_full if fault in ("grow", "full") else failing(hook)
            failed = []

            def fail(*arguments, do=do, failed=failed):
                failed.append(arguments)
                do(*arguments)

            setattr(faults, hook, at_call(number, fail))
            extents = store._core.volume.superblock.extents
            try:
                act(store, what)
                # The reserve is taken where there is no other space.
                assert not failed or fault == "grow"
                done = True
            except SiltstoneError:
                assert failed
                done = False
            setattr(faults, hook, nothing)
            assert_all_there(store)
            if not done and store._core.volume.poisoned is None:
                # All of what was taken was given back, and it can be done later.
                kinds = [(each.kind, each.state) for each in store._core.volume.superblock.extents]
                assert (KIND_HASH_STORE, EMPTY) not in kinds
                assert kinds.count(("journal", EMPTY)) == [(each.kind, each.state) for each in extents].count(
                    ("journal", EMPTY)
                )
                if store._core.shards.group.shards[0].broken is None:
                    assert act(store, what)
            finish(path, store, what)
        path.unlink()
        if not failed:
            break
        number += 1
    assert number > 1 or fault in ("grow", "read")
