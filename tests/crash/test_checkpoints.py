"""What an opening does with a checkpoint: whole, damaged, of another time or place; and what it reads."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from medium import HEAD, Image, Medium
from small_stores import in_small
from store_life import (
    OPTIONS,
    PAYLOAD_SIZE,
    StoreLife,
    contents,
    put,
    reopened,
)
from store_operations import OPERATIONS

from siltstone.errors import DamageError
from siltstone.format.checkpoint import decode_header, encode_header
from siltstone.format.constants import (
    CLUSTER_SIZE,
    ERASE_BLOCK_MIN,
    EXTENTS_OFFSET,
    TYPE_HASH,
)
from siltstone.format.seal import journal_seed
from siltstone.format.superblock import RecordedType
from siltstone.index.types import KeyTypes
from siltstone.log_store.checkpoint import fault_of
from siltstone.lookup.reader import Reader
from siltstone.shard.checkpoint import Covering
from siltstone.shard.opening import open_shards_read_only
from siltstone.volume import allocator
from siltstone.volume.volume import Volume

ROOM = 24 * ERASE_BLOCK_MIN
NOTE = 0x20
#: batches in two closed journals and the active one, a key put twice, one deleted
WORK = ("batch", "append", "roll", "batch", "append", "delete", "roll", "batch", "append")


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """The shards' checkpoints that openings believed."""
    found = []
    begin = Covering.begin
    monkeypatch.setattr(Covering, "begin", lambda self, store: (found.append(self), begin(self, store))[1])
    return found


def closed_life(*work: str) -> StoreLife:
    """A store that did some work, was closed cleanly, and whose process is gone."""
    life = StoreLife.formatted(Image.blank(ROOM))
    for name in work or WORK:
        OPERATIONS[name](life)
    life.open = lambda: None  # type: ignore[method-assign]
    life.close()
    return life


def checkpoint_of(life: StoreLife):
    extent = allocator.checkpoint_of(life.superblock, 0)
    assert extent is not None
    return extent


def image_at(offset: int) -> int:
    return offset - EXTENTS_OFFSET + HEAD


def changed(life: StoreLife, offset: int, data: bytes) -> Image:
    """The medium with other bytes at one place of the volume."""
    durable = bytearray(life.medium.bytes)
    durable[image_at(offset) : image_at(offset) + len(data)] = data
    return Image(durable)


def bytes_at(life: StoreLife, offset: int, size: int) -> bytes:
    return bytes(life.medium.bytes[image_at(offset) : image_at(offset) + size])


def header_of(life: StoreLife, extent):
    seed = journal_seed(life.superblock.uuid, extent.id, extent.generation)
    return decode_header(bytes_at(life, extent.offset, CLUSTER_SIZE), seed, extent.length), seed


def test_a_clean_opening_believes_the_checkpoint(restored):
    life = closed_life()
    reopened(Image(life.medium.bytes), life.told[-1])
    assert len(restored) == 1


def test_nothing_of_what_is_covered_is_read(monkeypatch, restored):
    life = closed_life()
    reads = []
    read = Medium.read
    monkeypatch.setattr(
        Medium,
        "read",
        lambda self, offset, length, *, fresh=False: (
            reads.append((offset, length)),
            read(self, offset, length, fresh=fresh),
        )[1],
    )
    again = StoreLife(Image(life.medium.bytes), life.told[-1])
    again._open()
    closed = [extent for extent in life.superblock.journals(0) if extent.state == "closed"]
    assert len(closed) == 2
    for offset, length in reads:
        for extent in closed:
            assert offset + length <= extent.offset or extent.stop <= offset
    # Of the active one both slots, and the cluster at its end, which is not written yet.
    active = life.superblock.journals(0)[-1]
    log = active.offset + 2 * CLUSTER_SIZE
    assert active.end is not None
    assert active.end.cluster > 0
    assert [
        offset for offset, _length in reads if log <= offset < log + active.end.cluster * CLUSTER_SIZE
    ] == []
    assert len(restored) == 1


def test_any_damaged_cluster_of_it_costs_nothing_but_time(restored, caplog):
    life = closed_life()
    extent = checkpoint_of(life)
    header, _seed = header_of(life, extent)
    assert header.slots.all()
    caplog.set_level(logging.INFO, "siltstone")
    for cluster in range(header.stop // CLUSTER_SIZE):
        at = extent.offset + cluster * CLUSTER_SIZE + 9
        image = changed(life, at, bytes([bytes_at(life, at, 1)[0] ^ 1]))
        restored.clear()
        caplog.clear()
        again = reopened(image, life.told[-1])
        # Its own index was made by a replay, and counts what that counts.
        assert len(restored) == (0 if cluster == 0 else 1)
        assert "checkpoint" in caplog.text
        other = reopened(Image(life.medium.bytes), life.told[-1])
        for journal in life.superblock.journals(0):
            assert again.group.shards[0].store.tally(journal) == other.group.shards[0].store.tally(journal)
        again.append()
        again.close()


def test_each_damaged_cluster_has_a_fault():
    life = closed_life()
    extent, uuid = checkpoint_of(life), life.superblock.uuid
    header, _seed = header_of(life, extent)
    assert fault_of(Medium(Image(life.medium.bytes)), uuid, extent) is None
    for cluster in range(header.stop // CLUSTER_SIZE):
        at = extent.offset + cluster * CLUSTER_SIZE + 9
        image = changed(life, at, bytes([bytes_at(life, at, 1)[0] ^ 1]))
        assert fault_of(Medium(image), uuid, extent) is not None


@pytest.mark.parametrize("size", [0, 1, CLUSTER_SIZE, 2 * CLUSTER_SIZE])
def test_one_that_was_cut_short(size, restored):
    life = closed_life()
    extent = checkpoint_of(life)
    reopened(changed(life, extent.offset + size, bytes(extent.length - size)), life.told[-1])


def sealed_anew(life: StoreLife, seed: int | None = None, **fields) -> Image:
    """The medium with a header whose checksum holds, and that says something else."""
    extent = checkpoint_of(life)
    header, own = header_of(life, extent)
    return changed(life, extent.offset, encode_header(replace(header, **fields), seed or own))


def test_one_of_another_life_volume_or_extent(restored):
    life = closed_life()
    extent, uuid = checkpoint_of(life), life.superblock.uuid
    for seed in (
        journal_seed(uuid, extent.id, extent.generation - 1),
        journal_seed(uuid, extent.id + 1, extent.generation),
        journal_seed(bytes(16), extent.id, extent.generation),
    ):
        reopened(sealed_anew(life, seed), life.told[-1])
    assert not restored


def test_one_that_names_journals_of_another_life_or_order(restored):
    life = closed_life()
    header, _seed = header_of(life, checkpoint_of(life))
    first, second, third = header.journals
    for journals in (
        (replace(first, generation=first.generation - 1), second, third),
        (first, second, replace(third, generation=third.generation + 1)),
        (second, first, third),
        (first, replace(second, extent=99), third),
        # No slot may name what is not listed, so that the counts have to fit.
        (second, replace(third, live=first.live + third.live)),
    ):
        reopened(sealed_anew(life, journals=journals), life.told[-1])
    assert not restored


def test_one_of_another_shape_or_with_other_keys(restored):
    life = closed_life()
    header, _seed = header_of(life, checkpoint_of(life))
    keys = bytearray(header.keys)
    keys[2 * TYPE_HASH + 1] = 16
    for fields in (
        {"layout": header.layout + 1},
        {"shard": 1},
        {"older": 1},
        {"covered": header.covered._replace(cluster=header.covered.cluster + 1)},
        {"buckets": header.buckets * np.uint32(1 << 20)},
    ):
        reopened(sealed_anew(life, **fields), life.told[-1])
    # Of a type that the superblock does not name no entry can be there.
    reopened(sealed_anew(life, keys=bytes(keys)), life.told[-1])
    assert len(restored) == 1


def test_one_with_another_key_of_a_type_that_may_be_there(restored):
    life = StoreLife.formatted(Image.blank(ROOM))
    known = {TYPE_HASH: RecordedType("hash_info", 1, "siltstone")}
    life.volume.publish(lambda superblock: replace(superblock, entry_types=known))
    life.batch()
    life.open = lambda: None  # type: ignore[method-assign]
    life.close()
    header, _seed = header_of(life, checkpoint_of(life))
    for at in (2 * TYPE_HASH, 2 * TYPE_HASH + 1):
        keys = bytearray(header.keys)
        keys[at] ^= 1
        reopened(sealed_anew(life, keys=bytes(keys)), life.told[-1])
    assert not restored
    reopened(sealed_anew(life), life.told[-1])
    assert len(restored) == 1


def test_slots_that_name_what_is_not_covered_are_not_believed(caplog):
    life = closed_life()
    header, _seed = header_of(life, checkpoint_of(life))
    numbers = [replace(one, number=one.number + 100) for one in header.journals]
    reopened(sealed_anew(life, journals=tuple(numbers)), life.told[-1])
    assert "damaged" in caplog.text


def lookup(life: StoreLife, keys: list[bytes]):
    reader = Reader([shard.store.index for shard in life.group.shards.values()])
    rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
    return reader.get_many(TYPE_HASH, rows, PAYLOAD_SIZE)


def test_a_flipped_bit_in_a_covered_journal_is_reported_and_not_served(restored):
    life = closed_life()
    first = life.superblock.journals(0)[-1]
    at = first.offset + 2 * CLUSTER_SIZE + 40
    again = StoreLife(changed(life, at, bytes([bytes_at(life, at, 1)[0] ^ 4])), life.told[-1])
    again._open()
    assert len(restored) == 1
    expected = contents(life.given[0])
    damaged, whole = 0, 0
    for one, payload in expected.items():
        try:
            found, payloads = lookup(again, [one])
        except DamageError as error:
            assert error.fields["journal"] == first.id
            assert error.fields["offset"] == first.offset + 2 * CLUSTER_SIZE
            damaged += 1
        else:
            assert found[0]
            assert bytes(payloads[0]) == payload
            whole += 1
    # What fits one cluster of the last batch; the rest lies elsewhere.
    assert (damaged, whole) == (81, len(expected) - 81)


def test_it_covers_only_what_was_flushed(restored):
    life = StoreLife.formatted(Image.blank(ROOM))
    life.batch()
    life.flush()
    life.batch()
    life.append()
    life.checkpoint()
    # All of it is durable by now: a power cut takes nothing of it.
    reopened(Image(bytes(life.medium.at_rest.durable)), life.told[-1])
    header, _seed = header_of(life, checkpoint_of(life))
    assert header.covered == life.group.shards[0].journal.position


def test_what_came_after_it_is_replayed_and_no_more(restored):
    life = StoreLife.formatted(Image.blank(ROOM))
    for _batch in range(24):
        life.batch()
    life.checkpoint()
    life.append()
    life.delete()
    life.flush()
    again = StoreLife(Image(life.medium.bytes), life.told[-1])
    again._open()
    assert len(restored) == 1
    assert again.group.shards[0].store.uncovered == 50 + 35
    again._check(0)


def test_nothing_is_written_where_nothing_changed():
    life = closed_life()
    again = reopened(Image(life.medium.bytes), life.told[-1])
    before = checkpoint_of(again)
    again.close()
    assert checkpoint_of(again) == before
    again.append()
    again.close()
    assert checkpoint_of(again).generation > before.generation
    assert [extent.kind for extent in again.superblock.extents].count("checkpoint") == 1


def test_where_there_is_no_space_the_close_succeeds_without():
    life = StoreLife.formatted(Image.blank(4 * ERASE_BLOCK_MIN))
    life.batch()
    life.close()
    assert allocator.checkpoint_of(life.superblock, 0) is None
    assert life.flushed == [1]


def test_a_medium_that_cannot_be_mapped_is_replayed(restored):
    life = closed_life()
    reopened(Image(life.medium.bytes), life.told[-1], mappable=False)
    assert not restored


def test_consumers_get_every_entry_without_a_key_once(restored):
    types = KeyTypes({TYPE_HASH: (0, 32)}, {NOTE})
    options = replace(OPTIONS, types=types)
    note = [bytes([6, NOTE]) + number.to_bytes(4, "big") for number in range(300)]

    def give(life: StoreLife, numbers: range) -> None:
        for number in numbers:
            stream = np.frombuffer(note[number] + put(number, number), np.uint8)
            life.group.append({0: (stream, 1)})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("store_life.OPTIONS", options)
        life = StoreLife.formatted(Image.blank(ROOM))
        give(life, range(100))
        life.roll()
        give(life, range(100, 200))
        life.checkpoint()
        give(life, range(200, 300))
        life.flush()
    got = []
    backend = Medium(Image(life.medium.bytes))
    backend.read_only = True
    with in_small():
        stores, _found = open_shards_read_only(
            Volume.open(backend), [0], replace(options, others=lambda _shard: got.extend)
        )
    assert len(restored) == 1
    assert [payload for kind, payload in got if kind == NOTE] == [one[2:] for one in note]
    assert stores[0].records == 300
