"""Stores of every kind that are closed and opened again hold what they held, whoever brings their index back."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_records import assert_holds, digest, hashes, info, rows

import siltstone
from siltstone.core.options import StoreOptions
from siltstone.core.verify import verify_volume
from siltstone.errors import DamageError
from siltstone.log_store.checkpoint import Restoring
from siltstone.shard import checkpoint
from siltstone_plugins.memory import forget


@pytest.fixture(autouse=True)
def _checkpoints_of_few_records(monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS_MIN", 1)


def kinds(store) -> list[str]:
    return [extent.kind for extent in store.info().extents]


def test_every_shard_has_one_after_a_close(path):
    with siltstone.open(path, shards=4) as store:
        store.put_many(*rows(range(30_000)))
        assert "checkpoint" not in kinds(store)
    for version in range(1, 4):
        with siltstone.open(path) as store:
            assert kinds(store).count("checkpoint") == 4
            assert_holds(store, range(30_000 if version == 1 else 10_000), version - 1)
            store.put_many(*rows(range(10_000), version))
    with siltstone.open(path, read_only=True) as store:
        assert_holds(store, range(10_000), 3)
        assert_holds(store, range(10_000, 30_000))
        assert store.info().records == 30_000


def test_a_writer_that_is_killed_leaves_a_checkpoint_of_most(path):
    """Long before it is closed: what came after the last one is replayed, and no more."""
    store = siltstone.open(path, shards=1, workers=0)
    store.put_many(*rows(range(300_000)))
    store.flush()
    end = time.monotonic() + 60
    while not any(each.kind == "checkpoint" and each.state == "closed" for each in store.info().extents):
        assert time.monotonic() < end, "no checkpoint within a minute"
        time.sleep(0.01)
    store._core.abandon()
    with siltstone.open(path, workers=0) as store:
        # What is replayed is counted in clusters, 81 entries in each.
        left = (300_000 - (8 << 20) // 50) // 81 + 1
        assert store._core.shards.group.shards[0].store.uncovered < 4096 * left
        assert_holds(store, range(300_000))


def test_a_lookup_waits_for_its_own_part_of_the_index_and_not_for_all_of_it(path, monkeypatch):
    with siltstone.open(path, shards=1, workers=0) as store:
        store.put_many(*rows(range(30_000)))
    usual, here = Restoring._bring_back, threading.current_thread()
    behind, began = [], threading.Event()

    def bring_back(self, index, number):
        # As from a slow medium.
        time.sleep(0.01)
        brought = usual(self, index, number)
        if threading.current_thread() is not here:
            behind.append(number)
            began.set()
        return brought

    monkeypatch.setattr(Restoring, "_bring_back", bring_back)
    with siltstone.open(path, workers=0) as store:
        assert began.wait(60), "nobody brings the rest back"
        waits = []
        for number in range(40):
            before = len(behind)
            assert store.get(digest(number)) == info(number)
            waits.append(len(behind) - before)
    assert len(behind) > 8
    assert max(waits) <= 2


def test_with_another_budget(path):
    with siltstone.open(path, shards=2, index_memory=64 << 20) as store:
        store.put_many(*rows(range(50_000)))
    for memory in (1 << 20, 256 << 20):
        with siltstone.open(path, index_memory=memory) as store:
            assert_holds(store, range(50_000))


def test_damage_that_no_replay_saw_is_reported_by_lookups_and_by_verify(path, host):
    with siltstone.open(path, shards=1) as store:
        store.put_many(*rows(range(20_000)))
        journal = next(extent for extent in store.info().extents if extent.kind == "journal")
    with path.open("r+b") as file:
        file.seek(journal.offset + 4 * 4096 + 7)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    with siltstone.open(path) as store:
        with pytest.raises(DamageError, match=f"journal {journal.id}, log cluster 2") as caught:
            store.get_many(hashes(range(20_000)))
        assert caught.value.fields["offset"] == journal.offset + 4 * 4096
    report = verify_volume(host, StoreOptions(target=str(path), plugins=host))
    assert [problem.journal for problem in report.problems] == [journal.id]


def test_verify_notes_a_damaged_checkpoint(path, host):
    with siltstone.open(path, shards=1) as store:
        store.put_many(*rows(range(20_000)))
    with siltstone.open(path) as store:
        extent = next(extent for extent in store.info().extents if extent.kind == "checkpoint")
    assert verify_volume(host, StoreOptions(target=str(path), plugins=host)).notes == ()
    with path.open("r+b") as file:
        file.seek(extent.offset + 5 * 4096 + 1)
        file.write(b"what?")
    report = verify_volume(host, StoreOptions(target=str(path), plugins=host))
    assert report.ok
    assert [note for note in report.notes if f"checkpoint {extent.id}" in note]
    with siltstone.open(path) as store:
        assert_holds(store, range(20_000))


NUMBERS = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NUMBERS, st.integers(1, 30)),
        st.tuples(st.just("delete"), NUMBERS, st.integers(1, 30)),
        st.tuples(st.sampled_from(["close", "die", "checkpoint", "roll", "flush"]), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_model(host, steps):
    """Whatever is put, deleted and rolled, an opening finds what a replay would."""
    target = "memory:checkpoints"
    forget("checkpoints")
    everything = np.arange(100)
    options = {"shards": 2, "workers": 0, "erase_block": 65536, "plugins": host}
    store = siltstone.Store(StoreOptions(target=target, **options))
    model: dict[int, int] = {}
    for version, (step, first, count) in enumerate(steps):
        numbers = range(first, first + count)
        if step == "put":
            # Many times the same, so that journals fill.
            for _again in range(20):
                store.put_many(*rows(numbers, version))
            model.update(dict.fromkeys(numbers, version))
        elif step == "delete":
            store.delete_many(hashes(numbers))
            for number in numbers:
                model.pop(number, None)
        elif step == "checkpoint":
            group = store._core.shards.group
            group.upkeep.checkpoint(list(group.shards.values()))
        elif step == "flush":
            store.flush()
        elif step in ("close", "die"):
            if step == "die":
                store.flush()
                store._core.abandon()
            else:
                store.close()
            store = siltstone.Store(StoreOptions(target=target, **options))
        found, physical, _logical = store.get_many(hashes(everything))
        assert found.nonzero()[0].tolist() == sorted(model)
        for number in model:
            assert physical[number] == rows([number], model[number])[1][0]
        assert store.info().records == len(model)
    store.close()
