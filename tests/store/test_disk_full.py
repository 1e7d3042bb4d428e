"""No space: a clear error, nothing lost, reads go on, and writing resumes when there is space."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from real_media import child, loop_over, mounted, output_of, program, run
from store_media import zram_device
from store_records import assert_holds, digest, hashes, info, rows

import siltstone
from siltstone.errors import DiskFullError, MediumError, PoisonedError, SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
#: rows of a call; of a call that fails each shard has taken its part whole, or nothing of it
STEP = 500

pytestmark = pytest.mark.root


def fill(store, start: int) -> tuple[int, str]:
    """Put until the disk is full; the first number of the call that failed, and what its error says."""
    while True:
        try:
            store.put_many(*rows(range(start, start + STEP)))
        except DiskFullError as error:
            assert error.needed > 0
            # Not the error itself: its frames would keep the store, and the disk busy.
            return start, str(error)
        start += STEP


def assert_takes_parts_whole(store, first: int) -> int:
    """Of a call that failed, each shard has all of its rows or none; how many there are."""
    numbers = np.arange(first, first + STEP)
    found = store.get_many(hashes(numbers))[0]
    shards = store._core.router.shards_of(store._default.id, hashes(numbers))
    for shard in np.unique(shards):
        assert len(set(found[shards == shard].tolist())) == 1, f"shard {shard} took a part of its batch"
    return int(found.sum())


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 12 MiB that 4 MiB of something else lie on."""
    with mounted("tmpfs", tmp_path / "disk", "-t", "tmpfs", "-o", "size=12m") as point:
        (point / "ballast").write_bytes(bytes(4 * MIB))
        yield point
        # An error that was caught may still keep a store, and with it the maps of its journals.
        gc.collect()


def delete_others(disk: Path) -> None:
    (disk / "ballast").unlink()


def remount_larger(disk: Path) -> None:
    run("mount", "-o", "remount,size=24m", disk)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("make_space", [delete_others, remount_larger])
def test_a_full_disk_is_said_reads_go_on_and_writing_resumes(
    disk, make_space: Callable[[Path], None], shards
):
    path = disk / "store.silt"
    with siltstone.open(path, shards=shards, erase_block=64 * 1024) as store:
        full_at, said = fill(store, 0)
        assert full_at > 10 * STEP
        assert "store.silt" in said
        # The next ones are refused in the same way; nothing is poisoned.
        for _attempt in range(3):
            with pytest.raises(DiskFullError):
                store.put_many(*rows(range(full_at, full_at + STEP)))
        more = assert_takes_parts_whole(store, full_at)
        assert_holds(store, range(full_at))
        assert len(store) == full_at + more
        store.flush()
        size = path.stat().st_size

        make_space(disk)
        again, _said = fill(store, full_at)
        assert again > full_at + 10 * STEP, "writing resumed"
        assert path.stat().st_size > size
        assert_holds(store, range(again))
        store.flush()
    with siltstone.open(path) as store:
        assert store.info().clean
        assert_holds(store, range(again))


def test_what_is_overwritten_makes_its_own_space(disk):
    """A disk that is full once goes on for ever, as long as what is alive fits."""
    keys = hashes(range(20_000))
    values = np.arange(len(keys), dtype=np.uint64)
    with siltstone.open(disk / "store.silt", shards=2, erase_block=64 * 1024) as store:
        for round_ in range(40):
            store.put_many(keys, values + round_, values)
        found, physical, _logical = store.get_many(keys)
        assert found.all()
        np.testing.assert_array_equal(physical, values + 39)
    with siltstone.open(disk / "store.silt") as store:
        np.testing.assert_array_equal(store.get_many(keys)[1], values + 39)


def test_what_is_flushed_on_a_full_disk_survives_a_death(disk):
    path = disk / "store.silt"
    store = siltstone.open(path, shards=4, erase_block=64 * 1024)
    full_at, _said = fill(store, 0)
    store.delete_many(hashes(range(20)))
    store.flush()
    store._core.abandon()
    # Recovery needs space as well: it is kept for it.
    for crash in (True, True, False, True):
        store = siltstone.open(path)
        assert_holds(store, range(20, full_at))
        assert not store.get_many(hashes(range(20)))[0].any()
        store._core.abandon() if crash else store.close()
    delete_others(disk)
    with siltstone.open(path) as store:
        store.put_many(*rows(range(20)))
        store.put_many(*rows(range(full_at, full_at + STEP)))
        assert_holds(store, range(full_at + STEP))


@pytest.mark.parametrize("shards", [1, 4])
def test_a_full_disk_is_cleaned_by_deleting(disk, shards):
    """Deletions need room as well, and so does whoever makes space; the last of it is theirs alone."""
    path = disk / "store.silt"
    store = siltstone.open(path, shards=shards, erase_block=64 * 1024)
    full_at, _said = fill(store, 0)
    # Until not even a single row finds room.
    with pytest.raises(DiskFullError):
        for number in range(full_at + STEP, 10_000_000):
            store.put_many(*rows([number]))
    half = full_at // 2
    # The oldest ones, then some from all over, so that no journal is mostly dead.
    assert store.delete_many(hashes(range(half // 2))).all()
    spread = np.random.default_rng(shards).permutation(np.arange(half // 2, full_at))
    for start in range(0, half, STEP):
        assert store.delete_many(hashes(spread[start : min(start + STEP, half)])).all()
    deleted, left = np.concatenate([np.arange(half // 2), spread[:half]]), spread[half:]
    again = len(deleted) // 2
    for start in range(0, again, STEP):
        store.put_many(*rows(deleted[start : min(start + STEP, again)]))
    for reopened in (False, True):
        assert_holds(store, deleted[:again])
        assert not store.get_many(hashes(deleted[again:]))[0].any()
        assert_holds(store, left)
        if not reopened:
            store.flush()
            store._core.abandon()
            store = siltstone.open(path)
    store.close()


@pytest.mark.parametrize("shards", [1, 4])
def test_deleting_everything_at_once_on_a_full_disk_gives_the_space_back(disk, shards):
    with siltstone.open(disk / "store.silt", shards=shards, erase_block=64 * 1024) as store:
        full_at, _said = fill(store, 0)
        assert store.delete_many(hashes(range(full_at))).all()
        again, _said = fill(store, full_at)
        assert again - full_at > full_at // 2


def test_puts_are_not_given_the_room_of_deletions(disk):
    path = disk / "store.silt"
    store = siltstone.open(path, shards=1, erase_block=64 * 1024)
    full_at, _said = fill(store, 0)
    # Here and there, so that cleaning gives little; that is for puts, as far as it goes.
    spread, end = hashes(range(0, full_at, 40)), full_at
    for start in range(0, len(spread), 50):
        assert store.delete_many(spread[start : start + 50]).all()
        end, _said = fill(store, end)
    assert end - full_at < full_at // 10
    store.flush()
    store._core.abandon()
    with siltstone.open(path) as store:
        assert not store.get_many(spread)[0].any()
        assert_holds(store, [number for number in range(end) if number % 40 or number >= full_at])


def test_room_that_was_for_deletions_is_for_puts_once_it_is_another_journals(disk, full_battery):
    """Filled and emptied in part again and again: an extent that comes back is what it is now."""
    chance = np.random.default_rng(1)
    alive, number = np.arange(0), 0
    with siltstone.open(disk / "store.silt", workers=0, shards=1, erase_block=64 * 1024) as store:
        (shard,) = store._core.shards.group.shards.values()
        for _round in range(12 if full_battery else 5):
            while True:
                numbers = np.arange(number, number + 200)
                try:
                    store.put_many(*rows(numbers))
                except DiskFullError:
                    assert not shard.last_room or shard.journal.position > (0, 0)
                    break
                alive, number = np.concatenate([alive, numbers]), number + 200
            alive = chance.permutation(alive)
            for _part in range(8):
                dead, alive = np.split(alive, [len(alive) // 12])
                for at in range(0, len(dead), 200):
                    store.delete_many(hashes(dead[at : at + 200]))
        assert_holds(store, alive)


def test_a_store_is_not_made_on_a_full_disk(disk):
    with (disk / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(DiskFullError, match=r"store\.silt"):
        siltstone.open(disk / "store.silt")
    with pytest.raises(DiskFullError, match=r"store\.silt"):
        siltstone.create(disk / "store.silt")
    assert [entry.name for entry in disk.iterdir()] == ["ballast"]


def test_a_full_disk_refuses_a_batch_whole(disk):
    with siltstone.open(disk / "store.silt", shards=1, erase_block=64 * 1024) as store:
        store.put(info(1))
        for _attempt in range(2):
            with pytest.raises(DiskFullError), store.batch() as batch:
                batch.delete(digest(1))
                batch.put_many(*rows(range(10, 400_000)))
        assert len(store) == 1
        store.put(info(2))
        store.flush()
    with siltstone.open(disk / "store.silt") as store:
        assert_holds(store, [1, 2])
        assert len(store) == 2


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_full_device_is_said_and_reads_go_on(tmp_path, sector):
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 8 * MIB)
    with loop_over(image, sector=sector) as device:
        siltstone.create(device, shards=2, erase_block=64 * 1024)
        store = siltstone.open(device)
        full_at, said = fill(store, 0)
        assert device in said
        assert full_at * 50 > 3 * MIB
        store.flush()
        for crash in (False, True, True):
            store._core.abandon() if crash else store.close()
            store = siltstone.open(device)
            assert_holds(store, range(full_at))
        store.close()


# ---- a limit on the size of files

LIMITED = """
import resource, signal, sys
import siltstone
from siltstone.errors import DiskFullError
from store_records import rows, assert_holds

MIB = 1 << 20
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limit[1]))
# The limit would keep memory from being shared with workers as well.
with siltstone.open(sys.argv[1], workers=0, shards=2, erase_block=64 * 1024) as store:
    number = 0
    try:
        while True:
            store.put_many(*rows(range(number, number + 500)))
            number += 500
    except DiskFullError as error:
        full_at = number
    assert_holds(store, range(full_at))
    store.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    store.put_many(*rows(range(full_at, 60_000)))
    store.flush()
    assert_holds(store, range(60_000))
print(full_at)
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(path):
    full_at = int(output_of(LIMITED, path))
    assert 10_000 < full_at < 60_000
    with siltstone.open(path) as store:
        assert_holds(store, range(60_000))


# ---- a flush that fails in the system

STRACED = """
import json, sys
import siltstone
from siltstone.errors import SiltstoneError
from store_records import rows, assert_holds

outcomes = []
# The limit would keep memory from being shared with workers as well.
store = siltstone.open(sys.argv[1], workers=0)
try:
    for number in range(0, 3000, 100):
        store.put_many(*rows(range(number, number + 100)))
        try:
            store.flush()
            outcomes.append("flushed")
        except SiltstoneError as error:
            outcomes.append(type(error).__name__)
except SiltstoneError as error:
    outcomes.append(type(error).__name__)
shown = len(store)
try:
    store.close()
    outcomes.append("closed")
except SiltstoneError as error:
    outcomes.append(type(error).__name__)
print(json.dumps([outcomes, shown]))
"""


@pytest.mark.parametrize("errno", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("when", [1, 4, 9, 16, 25])
def test_a_flush_that_the_system_fails_once_is_the_last(path, tmp_path, errno, when):
    """The real interpreter and the real calls: only the result of one fdatasync is another."""
    strace = program("strace")
    siltstone.create(path, shards=1, erase_block=64 * 1024)
    trace = tmp_path / "trace"
    wrapper = (
        strace, "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync",
        "-e", f"inject=fdatasync:error={errno}:when={when}",
    )  # fmt: skip
    with child(STRACED, path, wrapper=wrapper) as process:
        printed, errors = process.communicate(timeout=120)
    lines = trace.read_text().splitlines()
    if not lines and "ptrace" in errors:
        pytest.skip(f"strace may not trace here: {errors.strip()}")
    (injected,) = [number for number, line in enumerate(lines) if "INJECTED" in line]
    assert not [line for line in lines[injected + 1 :] if "sync(" in line], (
        "a flush that failed is not tried again"
    )
    if process.returncode != 0:
        # It failed while the store was being opened.
        assert "MediumError" in errors
        flushed = 0
    else:
        outcomes, shown = json.loads(printed)
        flushed = outcomes.count("flushed")
        assert outcomes[:flushed] == ["flushed"] * flushed
        assert outcomes[flushed] == MediumError.__name__
        assert set(outcomes[flushed + 1 :]) <= {PoisonedError.__name__, MediumError.__name__}
        assert shown >= 100 * flushed
    with siltstone.open(path) as store:
        assert_holds(store, range(100 * flushed))
        assert len(store) % 100 == 0
        assert_holds(store, range(len(store)))
        store.put_many(*rows(range(3000)))
        store.flush()


# ---- a disk that runs full behind the store's back


@pytest.mark.parametrize("direct", [True, False])
def test_a_thin_device_that_runs_full_acknowledges_nothing_that_it_lost(direct):
    acknowledged = 0
    options = {"backend_options": {"direct": direct, "discard": "keep"}}
    with zram_device() as device:
        siltstone.create(device, shards=1, erase_block=64 * 1024)
        limit = Path(f"/sys/block/{Path(device).name}/mem_limit")
        limit.write_text("3M")
        store = siltstone.open(device, **options)
        with pytest.raises(SiltstoneError):
            while acknowledged < 400_000:
                store.put_many(*rows(range(acknowledged, acknowledged + STEP)))
                store.flush()
                acknowledged += STEP
        assert 5 * STEP < acknowledged < 400_000
        with pytest.raises(SiltstoneError):
            store.flush()
        with pytest.raises(SiltstoneError):
            store.close()
        limit.write_text("0")
        try:
            store = siltstone.open(device, **options)
        except MediumError as error:
            # What the kernel lost after the last flush that it answered, it tells to the first flush that comes then.
            assert error.operation == "flush"
            store = siltstone.open(device, **options)
        with store:
            assert_holds(store, range(acknowledged))
            assert len(store) in (acknowledged, acknowledged + STEP)
            store.put_many(*rows(range(400_000, 420_000)))
