"""Media that fail in the middle of something: while others flush, behind a flush for the bound, in housekeeping."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from pathlib import Path

import pytest
from store_faults import Faults, at_call, failing, nothing
from store_records import assert_holds, info, rows

import siltstone
from siltstone.errors import DiskFullError, MediumError, PoisonedError, SiltstoneError
from siltstone.shard.spares import make_spare, wants_spare

MIB = 1 << 20


@pytest.fixture
def store(faulty_store):
    return faulty_store


def disk_full(*_arguments):
    # As a plugin raises it: with the facts that are promised, and no others.
    raise DiskFullError("faulty: no space", url="faulty", needed=1)


def fill_until_a_spare_is_due(store):
    shard = store._core.shards.group.shards[0]
    put = 0
    while not wants_spare(shard):
        store.put_many(*rows(range(put, put + 50)))
        put += 50
    store.flush()
    return put


def slots_of_spares(store, act):
    """A hook that does `act` where the tail slots of a spare are written."""
    extent = store._core.shards.group.shards[0].journal.extent

    def hook(_inner, offset, _data):
        if offset >= MIB and not extent.offset <= offset < extent.stop:
            act()

    return hook


def test_a_write_that_fails_while_a_flush_runs_fails_the_flush(path, store, faults):
    store.put_many(*rows(range(100)))
    store.flush()
    store.put_many(*rows(range(100, 110)))
    told = []

    def put():
        try:
            store.put_many(*rows(range(1000, 1400)))
        except MediumError as error:
            told.append(error)

    def put_meanwhile(_inner):
        faults.write = at_call(1, failing("write"))
        putter = threading.Thread(target=put)
        putter.start()
        putter.join()

    faults.flush = at_call(1, put_meanwhile)
    with pytest.raises(PoisonedError, match="EIO"):
        store.flush()
    assert len(told) == 1
    with pytest.raises(PoisonedError):
        store.put_many(*rows([1]))
    assert_holds(store, range(110))
    store._core.abandon()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, range(100))
        assert len(reopened) in range(100, 111)


def test_a_batch_given_up_behind_its_own_flush_leaves_the_store_in_use(path, faults):
    store = siltstone.open(f"faulty:{path}", shards=1, plugins=faults.host())
    store.put_many(*rows(range(10)))
    store.flush()
    big = rows(range(1000, 351_000))
    large_writes = at_call(2, disk_full)
    faults.write = lambda _inner, _offset, data: large_writes() if len(memoryview(data)) > MIB // 4 else None
    with pytest.raises(DiskFullError), store.batch() as batch:
        batch.put_many(*big)
    faults.write = nothing
    store.flush()
    assert len(store) == 10
    store.put_many(*rows(range(10, 20)))
    store.flush()
    store.close()
    with siltstone.open(path) as reopened:
        assert reopened.info().clean
        assert len(reopened) == 20
        assert_holds(reopened, range(20))


def test_a_spare_that_cannot_be_made_ready_gives_its_space_back(path, store, faults):
    put = fill_until_a_spare_is_due(store)
    shard = store._core.shards.group.shards[0]
    faults.write = slots_of_spares(store, disk_full)
    sizes = []
    for _attempt in range(4):
        with pytest.raises(DiskFullError):
            make_spare(shard)
        states = [extent.state for extent in store.info().extents]
        assert "empty" not in states
        sizes.append(store.info().volume_bytes)
    assert len(set(sizes)) == 1
    faults.write = nothing
    store.put_many(*rows(range(put, put + 5000)))
    store.close()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, range(put + 5000))


def test_housekeeping_outlives_an_error_that_is_not_ours_and_tells_it_once(path, store, faults, caplog):
    put = fill_until_a_spare_is_due(store)

    def broken_backend():
        raise OSError(5, "a plugin that does not translate its errors")

    faults.write = slots_of_spares(store, broken_backend)
    with caplog.at_level(logging.WARNING):
        for _tick in range(20):
            store._core.shards.group.tick()
    assert len(caplog.records) == 1
    assert "does not translate" in caplog.text
    faults.write = nothing
    store.put_many(*rows(range(put, put + 100)))
    store.flush()
    assert_holds(store, range(put + 100))


def test_a_failed_superblock_write_does_not_flood_the_log(path, store, faults, caplog):
    put = fill_until_a_spare_is_due(store)
    faults.flush = failing("flush")
    with caplog.at_level(logging.WARNING):
        for _tick in range(20):
            store._core.shards.group.tick()
    assert len(caplog.records) <= 1
    assert_holds(store, range(put))


def test_a_discard_that_fails_fails_nothing_else(path, host, store, faults):
    store.put_many(*rows(range(10)))
    store.flush()
    store._core.abandon()
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        failing("discard")(*arguments)

    faults.discard = refuse
    with siltstone.open(f"faulty:{path}", plugins=faults.host()) as reopened:
        assert asked
        assert_holds(reopened, range(10))
        reopened.put_many(*rows(range(10, 20)))
    with siltstone.open(path, plugins=host) as reopened:
        assert_holds(reopened, range(20))


@pytest.mark.parametrize("number", [1, 2])
def test_no_superblock_is_written_after_one_that_failed(path, store, faults, number):
    """Not even where the medium says that it is only full: one slot may be new, and its sequence must stay unique."""
    put = fill_until_a_spare_is_due(store)
    write = at_call(number, disk_full)
    faults.write = lambda _inner, offset, _data: write() if offset < MIB else None
    shard = store._core.shards.group.shards[0]
    with pytest.raises(DiskFullError):
        make_spare(shard)
    faults.write = nothing
    with pytest.raises(PoisonedError, match="no space"):
        make_spare(shard)
    with pytest.raises(PoisonedError):
        store.close()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, range(put))


def test_a_store_that_failed_lets_its_volume_go_when_it_is_closed(path):
    """At once, not when the garbage is collected: a device that is still mapped cannot be given to anybody else."""
    faults = Faults()
    store = siltstone.open(f"faulty:{path}", plugins=faults.host(), shards=2)
    store.put(info(1))
    faults.flush = failing("flush")
    gc.disable()
    try:
        for call in (store.flush, store.flush, lambda: store.put(info(2)), store.close):
            with contextlib.suppress(SiltstoneError):
                call()
        maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    finally:
        gc.enable()
    assert maps == []
