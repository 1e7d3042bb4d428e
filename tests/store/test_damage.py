"""Durable bytes that are not what was written, or cannot be read: reported with their place, never served."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from real_media import digest, loop_over
from store_faults import Faults, input_output_error
from store_records import assert_holds, assert_lacks, rows

import siltstone
from siltstone.errors import DamageError, MediumError
from siltstone.shard import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
CLUSTER = 4096


@pytest.fixture(autouse=True)
def _no_checkpoints(monkeypatch):
    """Here openings read everything; what they find where a checkpoint spares them that is in test_checkpoints."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS_MIN", 1 << 40)


@dataclass(frozen=True)
class Journal:
    """Where a journal of a closed store lies: its offset and length, its id, its clusters with entries."""

    id: int
    offset: int
    clusters: int
    state: str

    def at(self, cluster: int) -> int:
        """Where log cluster `cluster` is on the volume."""
        return self.offset + (2 + cluster) * CLUSTER


def journals_of(path, **options) -> list[Journal]:
    """The journals of a store, oldest first."""
    with siltstone.open(path, read_only=True, **options) as store:
        return [
            Journal(extent.id, extent.offset, extent.used // CLUSTER - 2, extent.state)
            for extent in store.info().extents
            if extent.kind == "journal" and extent.state in ("active", "closed")
        ]


def flip(path: Path, offset: int) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


@pytest.fixture
def rolled(path) -> Path:
    """A store of one shard with closed journals and an active one, closed cleanly."""
    with siltstone.open(path, shards=1, erase_block=64 * 1024) as store:
        # In pieces that fit the first, small journal.
        for start in range(0, 8000, 200):
            store.put_many(*rows(range(start, start + 200)))
        store.flush()
        store.put_many(*rows(range(8000, 8050)))
    return path


def assert_damage(path: Path, journal: Journal, cluster: int | None, offset: int, **options: object) -> None:
    with pytest.raises(DamageError) as caught:
        siltstone.open(path, **options)
    error = caught.value
    assert (error.journal, error.cluster, error.offset) == (journal.id, cluster, offset)
    assert str(path) in str(error)
    assert f"journal {journal.id}" in str(error)
    assert str(offset) in str(error)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("byte", [0, 1, 2000, 4064, 4072, 4095])
def test_damage_in_a_closed_journal_is_named(rolled, where, byte, read_only):
    closed = next(journal for journal in journals_of(rolled) if journal.state == "closed")
    cluster = {"first": 0, "middle": closed.clusters // 2, "last": closed.clusters - 1}[where]
    flip(rolled, closed.at(cluster) + byte)
    assert_damage(rolled, closed, cluster, closed.at(cluster), read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("where", ["first", "last"])
def test_damage_in_the_active_journal_is_named(rolled, where, read_only):
    (active,) = [journal for journal in journals_of(rolled) if journal.state == "active"]
    assert active.clusters > 2
    cluster = 0 if where == "first" else active.clusters - 1
    flip(rolled, active.at(cluster) + 77)
    assert_damage(rolled, active, cluster, active.at(cluster), read_only=read_only)


def test_damage_to_the_tail_of_a_closed_store_is_refused(rolled):
    (active,) = [journal for journal in journals_of(rolled) if journal.state == "active"]
    whole = rolled.read_bytes()
    held = 0
    for slot in (0, 1):
        flip(rolled, active.offset + slot * CLUSTER + 20)
        try:
            with siltstone.open(rolled, read_only=True) as store:
                assert_holds(store, range(8050))
        except DamageError as error:
            held += 1
            assert error.journal == active.id
        rolled.write_bytes(whole)
    assert held == 1, "one slot holds the end, the other an older tail"
    for slot in (0, 1):
        flip(rolled, active.offset + slot * CLUSTER + 20)
    assert_damage(rolled, active, None, active.offset)


def test_an_opening_that_is_refused_can_be_repeated_and_loses_nothing(rolled):
    closed = next(journal for journal in journals_of(rolled) if journal.state == "closed")
    flip(rolled, closed.at(1) + 500)
    sizes = set()
    for _attempt in range(6):
        assert_damage(rolled, closed, 1, closed.at(1))
        sizes.add(rolled.stat().st_size)
    assert len(sizes) <= 2, "a refused opening takes space each time"
    flip(rolled, closed.at(1) + 500)
    with siltstone.open(rolled) as store:
        assert len(store) == 8050
        assert_holds(store, range(8050))


def test_a_stale_cluster_is_damage(rolled):
    """A write that was lost leaves what was there before: its checksum holds, but not for this place."""
    closed = next(journal for journal in journals_of(rolled) if journal.state == "closed")
    contents = bytearray(rolled.read_bytes())
    contents[closed.at(3) : closed.at(4)] = contents[closed.at(2) : closed.at(3)]
    rolled.write_bytes(contents)
    assert_damage(rolled, closed, 3, closed.at(3))


def test_what_another_volume_left_is_damage(rolled, tmp_path):
    other = tmp_path / "other.silt"
    with siltstone.open(other, shards=1, erase_block=64 * 1024) as store:
        store.put_many(*rows(range(8050), 1))
    closed = next(journal for journal in journals_of(rolled) if journal.state == "closed")
    contents = bytearray(rolled.read_bytes())
    contents[closed.at(0) : closed.at(4)] = other.read_bytes()[closed.at(0) : closed.at(4)]
    rolled.write_bytes(contents)
    assert_damage(rolled, closed, 0, closed.at(0))


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("cluster", [0, 17, 36])
def test_damage_to_what_was_acknowledged_before_a_crash_is_not_a_torn_end(path, crashed, cluster, read_only):
    journal, _durable = crashed
    flip(path, journal.at(cluster) + 123)
    assert_damage(path, journal, cluster, journal.at(cluster), read_only=read_only)
    flip(path, journal.at(cluster) + 123)
    with siltstone.open(path) as store:
        assert_holds(store, range(3000))


# ---- what cannot be read


@pytest.fixture
def faults() -> Faults:
    return Faults()


def unreadable(faults: Faults, first: int, length: int = CLUSTER) -> None:
    """Let reads of a range fail."""

    def hook(_inner, offset, size):
        if offset < first + length and first < offset + size:
            raise input_output_error("read", first, size)

    faults.read = hook


@pytest.fixture
def crashed(path, faults):
    """A store whose writer died: 3000 records acknowledged, many more written behind them and never flushed.

    Its journal, and the log cluster that held the end of what was acknowledged.
    """
    store = siltstone.open(f"faulty:{path}", shards=1, plugins=faults.host())
    store.put_many(*rows(range(3000)))
    store.flush()
    for start in range(3000, 6000, 100):
        store.put_many(*rows(range(start, start + 100)))
    store._core.abandon()
    (journal,) = journals_of(path)
    return journal, 3000 // 81


def open_faulty(path, faults, **options):
    return siltstone.open(f"faulty:{path}", plugins=faults.host(), **options)


@pytest.mark.parametrize("behind", [0, 1, 5])
def test_a_read_error_behind_the_durable_end_is_the_torn_end_only_where_asked_for(
    path, faults, crashed, behind
):
    journal, durable = crashed
    place = journal.at(durable + behind)
    unreadable(faults, place)
    for options in ({}, {"read_only": True}):
        with pytest.raises(MediumError) as caught:
            open_faulty(path, faults, **options)
        assert caught.value.errno == errno.EIO
        assert caught.value.offset == place
    with open_faulty(path, faults, unreadable_is_torn=True) as store:
        assert_holds(store, range(3000))
        # Whole batches of 100, up to the cluster that cannot be read.
        found = store.get_many(rows(range(3000, 6000))[0])[0]
        count = int(found.sum())
        assert count % 100 == 0
        assert found[:count].all()
        assert count <= behind * 81 + 81
        (recovery,) = store.recovery
        assert recovery.end.position <= (durable + behind, 4062)
    faults.read = Faults().read
    with open_faulty(path, faults) as store:
        assert_holds(store, range(3000 + count))
        assert len(store) == 3000 + count


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("before", [1, 20, 37])
def test_a_read_error_before_the_durable_end_is_never_a_torn_end(path, faults, crashed, before, torn):
    journal, durable = crashed
    place = journal.at(durable - before)
    unreadable(faults, place)
    for _attempt in range(2):
        with pytest.raises(MediumError) as caught:
            open_faulty(path, faults, unreadable_is_torn=torn)
        assert caught.value.offset == place
    faults.read = Faults().read
    with open_faulty(path, faults) as store:
        assert_holds(store, range(3000))


@pytest.mark.parametrize("torn", [False, True])
def test_a_read_error_in_a_closed_journal_is_never_a_torn_end(rolled, faults, torn):
    closed = next(journal for journal in journals_of(rolled) if journal.state == "closed")
    unreadable(faults, closed.at(closed.clusters - 1))
    with pytest.raises(MediumError) as caught:
        open_faulty(rolled, faults, unreadable_is_torn=torn)
    assert caught.value.offset == closed.at(closed.clusters - 1)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_superblock_slot_that_cannot_be_read_refuses_to_open(rolled, faults, slot):
    before = digest(rolled)
    unreadable(faults, slot * MIB // 2)
    for options in ({}, {"read_only": True}, {"unreadable_is_torn": True}):
        with pytest.raises(MediumError) as caught:
            open_faulty(rolled, faults, **options)
        assert caught.value.offset == slot * MIB // 2
    assert digest(rolled) == before


def test_a_read_error_that_passes_costs_nothing(path, faults, crashed):
    journal, _durable = crashed
    unreadable(faults, journal.at(0))
    with pytest.raises(MediumError):
        open_faulty(path, faults)
    faults.read = Faults().read
    with open_faulty(path, faults) as store:
        assert_holds(store, range(3000))


@pytest.mark.root
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("sector", [512, 4096])
def test_a_device_with_bad_sectors_is_refused_with_their_offset(tmp_path, sector, direct):
    """A loop device whose image is cut under it gives EIO for what is gone."""
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 16 * MIB)
    options = {"backend_options": {"direct": direct}}
    with loop_over(image, sector=sector) as device:
        siltstone.create(device, shards=1, **options)
        with siltstone.open(device, **options) as store:
            store.put_many(*rows(range(10_000)))
        (journal,) = journals_of(device, **options)
        whole = image.read_bytes()
        os.truncate(image, journal.offset)
        before = digest(image)
        with pytest.raises(MediumError) as caught:
            siltstone.open(device, read_only=True, **options)
        assert caught.value.errno == errno.EIO
        assert caught.value.offset == journal.offset
        assert device in str(caught.value)
        assert digest(image) == before
        with pytest.raises(MediumError):
            siltstone.open(device, unreadable_is_torn=True, **options)
        with image.open("r+b") as file:
            file.seek(journal.offset)
            file.write(whole[journal.offset :])
        with siltstone.open(device, **options) as store:
            assert_holds(store, range(10_000))
            assert_lacks(store, range(10_000, 10_100))
