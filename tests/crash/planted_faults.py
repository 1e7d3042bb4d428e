"""Faults to put into the engine on purpose, each a function that plants one with pytest's monkeypatch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from journal_life import UUID
from medium import Medium

from siltstone.errors import MediumError
from siltstone.format.constants import CLUSTER_SIZE, SLOT_OFFSETS
from siltstone.format.seal import End, Position, journal_key, parse_seal
from siltstone.format.superblock import FREE
from siltstone.format.superblock_slot import decode_slot
from siltstone.journal import log_reader, recovery, sealed
from siltstone.journal.log_reader import LogReader
from siltstone.journal.sealed import SealedJournal
from siltstone.shard import checkpoint, group, opening, rolling, space, spares
from siltstone.shard.shard import Shard
from siltstone.volume import volume as volume_module
from siltstone.volume.slots import write_slots
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    import pytest

    Plant = pytest.MonkeyPatch


# ---- the journal


def the_same_slot_every_time(plant: Plant) -> None:
    usual = SealedJournal.end_flush

    def end_flush(self: Any) -> None:
        slot = self._slot
        usual(self)
        self._slot = slot

    plant.setattr(SealedJournal, "end_flush", end_flush)


def the_idle_note_in_the_slot_of_the_end(plant: Plant) -> None:
    usual = SealedJournal.begin_flush

    def begin_flush(self: Any, *, note: bool = False, pieces: Any = None) -> bool:
        if note:
            self._slot = 1 - self._slot
        return usual(self, note=note, pieces=pieces)

    plant.setattr(SealedJournal, "begin_flush", begin_flush)


def a_batch_in_two_parts(plant: Plant) -> None:
    usual = SealedJournal.append_stream

    def append_stream(self: Any, stream: Any, **options: Any) -> Any:
        raw = bytes(stream)
        first = raw[0]
        if len(raw) == first:
            return usual(self, stream, **options)
        pieces = [
            usual(self, np.frombuffer(piece, np.uint8), **options) for piece in (raw[:first], raw[first:])
        ]
        return np.concatenate(pieces)

    plant.setattr(SealedJournal, "append_stream", append_stream)


def a_batch_given_up_and_forgotten(plant: Plant) -> None:
    usual = SealedJournal.append_stream

    def append_stream(self: Any, stream: Any, **options: Any) -> Any:
        try:
            return usual(self, stream, **options)
        except KeyboardInterrupt:
            self.given_up = False
            raise

    plant.setattr(SealedJournal, "append_stream", append_stream)


def durable_is_never_told(plant: Plant) -> None:
    usual = SealedJournal.end_flush

    def end_flush(self: Any) -> None:
        usual(self)
        self.writer.durable = Position(0, 0)

    plant.setattr(SealedJournal, "end_flush", end_flush)


def _plant_key(plant: Plant, key: Any) -> None:
    plant.setattr(sealed, "journal_key", key)
    plant.setattr(log_reader, "journal_key", key)


def no_generation_in_the_seed(plant: Plant) -> None:
    _plant_key(plant, lambda uuid, number, _generation: journal_key(uuid, number, 0))


def half_a_generation_in_the_seed(plant: Plant) -> None:
    _plant_key(plant, lambda uuid, number, generation: journal_key(uuid, number, generation & 0xFFFFFFFF))


def no_journal_in_the_seed(plant: Plant) -> None:
    _plant_key(plant, lambda uuid, _number, generation: journal_key(uuid, 0, generation))


def no_volume_in_the_seed(plant: Plant) -> None:
    _plant_key(plant, lambda _uuid, number, generation: journal_key(UUID, number, generation))


# ---- flushes


def a_medium_that_lies(plant: Plant) -> None:
    usual = Medium.__init__

    def init(self: Any, image: Any, **options: Any) -> None:
        usual(self, image, **{**options, "honest": False})

    plant.setattr(Medium, "__init__", init)


def no_flush_between_begin_and_end(plant: Plant) -> None:
    plant.setattr(Volume, "flush", lambda _self, *_arguments, **_options: None)


def no_barrier_at_an_opening(plant: Plant) -> None:
    usual = Volume.open.__func__  # type: ignore[attr-defined]

    def open_volume(cls: Any, /, backend: Any, **options: Any) -> Volume:
        backend.flush = lambda: None
        try:
            return usual(cls, backend, **options)  # type: ignore[no-any-return]
        finally:
            del backend.flush

    plant.setattr(Volume, "open", classmethod(open_volume))


def no_prepared_slots(plant: Plant) -> None:
    plant.setattr(SealedJournal, "prepare", lambda _self: None)


def the_roll_published_before_the_flush(plant: Plant) -> None:
    usual = rolling.complete

    def flush_closing(turned: Any) -> None:
        for shard in turned:
            if shard.closing is not None and not shard.closing.is_flushed:
                shard.closing.end_flush()

    def complete(shards: Any) -> None:
        is_due = any(shard.turned for shard in shards)
        usual(shards)
        if is_due:
            shards[0].volume.flush()

    plant.setattr(rolling, "_flush_closing", flush_closing)
    for module in (rolling, group, checkpoint):
        plant.setattr(module, "complete", complete)


def only_the_first_written_before_a_roll_together(plant: Plant) -> None:
    usual, write_slot = rolling._turn_held, SealedJournal._write_slot

    def turn_held(shards: Any) -> None:
        usual(shards[:1])
        plant.setattr(SealedJournal, "_write_slot", lambda _self, *_where: None)
        usual(shards[1:])
        plant.setattr(SealedJournal, "_write_slot", write_slot)

    plant.setattr(rolling, "_turn_held", turn_held)


def what_was_put_behind_a_roll_acknowledged_before_it(plant: Plant) -> None:
    usual = Shard.begin_flush

    def begin_flush(self: Any, pieces: Any, **options: Any) -> bool:
        turned, self.turned = self.turned, False
        try:
            return usual(self, pieces, **options)
        finally:
            self.turned = turned

    plant.setattr(Shard, "begin_flush", begin_flush)
    plant.setattr(group, "complete", lambda _shards: None)


def a_roll_that_the_superblock_is_not_told(plant: Plant) -> None:
    def complete(shards: Any) -> None:
        for shard in shards:
            if shard.turned and shard.closing is not None and not shard.closing.is_flushed:
                shard.volume.flush()
                shard.closing.end_flush()
            shard.turned, shard.closing = False, None

    plant.setattr(group, "complete", complete)


def only_the_first_made_ready_of_spares_together(plant: Plant) -> None:
    usual = spares._make_ready

    def make_ready(extents: Any) -> None:
        plant.setattr(SealedJournal, "prepare", prepare)
        usual(extents)

    def prepare(self: Any) -> None:
        plant.setattr(SealedJournal, "prepare", lambda _self: None)
        usual_prepare(self)

    usual_prepare = SealedJournal.prepare
    plant.setattr(spares, "_make_ready", make_ready)


def the_copy_published_before_the_flush(plant: Plant) -> None:
    usual = opening._make_way

    def make_way(volume: Any, plans: Any) -> None:
        volume.flush = lambda *_arguments, **_options: None
        try:
            usual(volume, plans)
        finally:
            del volume.flush

    plant.setattr(opening, "_make_way", make_way)


# ---- recovery


def going_on_in_the_recovered_journal(plant: Plant) -> None:
    usual = opening._make_way

    def make_way(volume: Any, plans: Any) -> None:
        changed = []
        for plan in plans:
            if plan.recovered is not None:
                plan.resume = True
                extent = volume.extent(plan.recovered.journal)
                changed.append(replace(extent, end=plan.recovered.end))
        volume.publish(lambda superblock: superblock.with_extents(*changed))
        usual(volume, plans)

    plant.setattr(opening, "_make_way", make_way)


def the_end_instead_of_the_last_boundary(plant: Plant) -> None:
    usual = recovery._last_boundary

    def last_boundary(reader: Any, count: int, tail: Any) -> End:
        end = usual(reader, count, tail)
        if tail is None and count:
            data = memoryview(reader.read(count - 1, 1))
            return End(count - 1, parse_seal(data).used, None, end.sequence)
        return end

    plant.setattr(recovery, "_last_boundary", last_boundary)


def eio_taken_for_the_end(plant: Plant) -> None:
    usual = LogReader.read

    def read(self: Any, first: int, count: int) -> Any:
        try:
            return usual(self, first, count)
        except MediumError:
            if count == 1:
                return bytes(CLUSTER_SIZE)
            return b"".join(bytes(read(self, first + number, 1)) for number in range(count))

    plant.setattr(LogReader, "read", read)


def old_generations_for_empty_journals(plant: Plant) -> None:
    def begin_epoch(self: Any) -> Any:
        return self.publish(lambda superblock: replace(superblock, epoch=superblock.epoch + 1, clean=False))

    plant.setattr(Volume, "begin_epoch", begin_epoch)


def the_epoch_not_raised(plant: Plant) -> None:
    usual = Volume.begin_epoch

    def begin_epoch(self: Any) -> Any:
        epoch = self.superblock.epoch
        usual(self)
        return self.publish(lambda superblock: replace(superblock, epoch=epoch))

    plant.setattr(Volume, "begin_epoch", begin_epoch)


def clean_not_cleared(plant: Plant) -> None:
    def begin_epoch(self: Any) -> Any:
        return self.publish(lambda superblock: replace(superblock, epoch=superblock.epoch + 1))

    plant.setattr(Volume, "begin_epoch", begin_epoch)


def one_order_for_all_journals(plant: Plant) -> None:
    # Of two alike the one that lies first counts as older; the reserve lies before its successors.
    plant.setattr(space, "next_order", lambda superblock, _shard: 1 << 20 >> len(superblock.extents))


# ---- the superblock and the space


def the_current_slot_first(plant: Plant) -> None:
    def write(backend: Any, data: bytes, current: int) -> int:
        write_slots(backend, data, 1 - current)
        return 1 - current

    plant.setattr(volume_module, "write_slots", write)


def both_slots_under_one_flush(plant: Plant) -> None:
    def write(backend: Any, data: bytes, current: int) -> int:
        for offset in SLOT_OFFSETS:
            backend.write(offset, data)
        backend.flush()
        return 1 - current

    plant.setattr(volume_module, "write_slots", write)


def one_slot_only(plant: Plant) -> None:
    def write(backend: Any, data: bytes, current: int) -> int:
        backend.write(SLOT_OFFSETS[1 - current], data)
        backend.flush()
        return 1 - current

    plant.setattr(volume_module, "write_slots", write)


def space_discarded_before_it_is_free(plant: Plant) -> None:
    def write(backend: Any, data: bytes, current: int) -> int:
        slot = decode_slot(data)
        assert slot is not None
        for extent in slot.superblock.extents:
            if extent.state == FREE:
                backend.discard(extent.offset, extent.length)
        return write_slots(backend, data, current)

    plant.setattr(volume_module, "write_slots", write)


def a_format_that_zeroes_nothing(plant: Plant) -> None:
    plant.setattr(volume_module, "erase_slots", lambda _backend: None)


def a_format_with_the_old_uuid(plant: Plant) -> None:
    usual = Volume.create.__func__  # type: ignore[attr-defined]

    def create(cls: Any, /, backend: Any, *, ports: Any, **options: Any) -> Volume:
        return usual(cls, backend, ports=replace(ports, random_bytes=lambda size: UUID[:size]), **options)  # type: ignore[no-any-return]

    plant.setattr(Volume, "create", classmethod(create))
