"""A whole store of a few shards on a fake medium, driven without threads, and what its caller was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from journal_life import ViolationError
from medium import Image, Medium
from small_stores import in_small, in_small_parts
from store_contents import contents, starts_of, stored_in
from store_told import BATCH, ENTRY_SIZE, PAYLOAD_SIZE, History, Told, key, put

from siltstone.errors import DamageError, DiskFullError, SiltstoneError
from siltstone.format.constants import ERASE_BLOCK_MIN, TYPE_DELETE, TYPE_HASH
from siltstone.format.superblock import CLOSED
from siltstone.index.types import KeyTypes
from siltstone.log_store.older_views import by_store
from siltstone.lookup.reader import Reader
from siltstone.shard import rolling, spares
from siltstone.shard.changes import CleanClose
from siltstone.shard.choosing import Run, candidates_of, choose
from siltstone.shard.group import ShardGroup
from siltstone.shard.incarnation import Incarnation, choose_oldest
from siltstone.shard.merging import choose_merge, merge_slice
from siltstone.shard.opening import OpenOptions, open_shards, open_shards_read_only
from siltstone.shard.packing import Cleaning, Packing
from siltstone.shard.spares import make_spare, make_spares
from siltstone.volume.ports import Ports
from siltstone.volume.slots import read_superblock
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from siltstone.format.superblock import Superblock
    from siltstone.log_store.log_store import LogStore
    from siltstone.shard.shard import Shard

TYPES = KeyTypes({TYPE_HASH: (0, 32)})
OPTIONS = OpenOptions(types=TYPES, key_entry_bytes=35, index_memory=1 << 20, threads=1)


class StoreLife:
    """Opens the store of a medium and works with it; each opening is compared with what was told before.

    :param told: of the life before, or None for a store that holds nothing
    """

    def __init__(
        self, image: Image, told: Told | None = None, *, shards: int = 1, mappable: bool = True
    ) -> None:
        self.medium = Medium(image, mappable=mappable)
        self.now = 0.0
        given = told.given if told else ((),) * shards
        flushed = told.flushed if told else (0,) * shards
        self.given: list[History] = list(given)
        self.flushed = list(flushed)
        self.packed = told.packed if told else frozenset()
        self.value = 1 + sum(map(len, given))
        self.told: list[Told] = []
        self._tell()

    @property
    def ports(self) -> Ports:
        return Ports(
            clock=lambda: self.now, wall_time=lambda: 1.7e9, random_bytes=lambda size: bytes(range(size))
        )

    def _tell(self) -> None:
        self.told.append(
            Told(len(self.medium.log), tuple(self.given), tuple(self.flushed), frozenset(self.packed))
        )

    def told_at(self, operations: int) -> Told:
        """What the caller knew once so many operations were done."""
        return next(told for told in reversed(self.told) if told.operations <= operations)

    # ---- opening

    @classmethod
    def formatted(cls, image: Image, *, shards: int = 1, mappable: bool = True) -> StoreLife:
        """Format the medium and open the store."""
        life = cls(image, shards=shards, mappable=mappable)
        Volume.create(life.medium, shards=shards, erase_block=ERASE_BLOCK_MIN, ports=life.ports)
        life.open()
        return life

    def open(self) -> None:
        """Open it as a new process does: what is there must be what was flushed, and a run of what came after."""
        try:
            self._open()
        except DamageError as error:
            raise ViolationError(f"P5: taken for damage: {error}") from error
        for number in range(len(self.given)):
            count = self._check(number)
            self.given[number] = self.given[number][:count]
            self.flushed[number] = count
        self._tell()

    def _open(self) -> None:
        self.volume = Volume.open(self.medium, ports=self.ports)
        clean, epoch = self.volume.superblock.clean, self.volume.superblock.epoch
        self.volume.begin_epoch()
        if read_superblock(self.medium)[0].superblock.epoch <= epoch:
            raise ViolationError(f"P9: the epoch is still {epoch}")
        with in_small():
            shards, _recoveries = open_shards(self.volume, range(len(self.given)), OPTIONS, clean=clean)
        self.group = ShardGroup(self.volume, shards)
        upkeep = self.group.upkeep
        make_space, pack = upkeep.make_space, upkeep.pack

        def making_space(**options: Any) -> bool:
            self._note_packed(*range(len(self.given)))
            return make_space(**options)

        def packing(shard: Shard) -> bool:
            if choose(candidates_of(shard)) is not None:
                self._note_packed(shard.number)
            return pack(shard)

        # Whoever finds no space makes some, and whoever keeps house packs what is worth it.
        upkeep.make_space, upkeep.pack = making_space, packing

    def _note_packed(self, *shards: int) -> None:
        """From here on the journals of these need no longer hold all that was given."""
        self.packed |= set(shards)
        self._tell()

    def _check(self, number: int) -> int:
        """Compare what one shard serves with what it was given; how many batches are there."""
        stored = stored_in(self.group.shards[number])
        count = self._count_packed(number, stored) if number in self.packed else self._count(number, stored)
        if count < self.flushed[number]:
            raise ViolationError(
                f"P1: shard {number} has {count} batches; {self.flushed[number]} were flushed"
            )
        expected = contents(self.given[number][:count])
        keys = sorted(contents([batch for batch in self.given[number] if batch[1] != TYPE_DELETE]))
        if keys:
            self._check_lookups(number, self.group.shards[number].store, keys, expected)
        return count

    def _count_packed(self, number: int, stored: bytes) -> int:
        """How many batches the journals speak for: they need only leave the same."""
        found = contents([stored[at : at + stored[at]] for at in starts_of(stored)])
        for count in range(len(self.given[number]), -1, -1):
            if contents(self.given[number][:count]) == found:
                return count
        raise ViolationError(f"P2, P3: shard {number} holds {len(found)} keys that it was not given so")

    def _count(self, number: int, stored: bytes) -> int:
        """How many batches the journals hold, to the byte."""
        count, size = 0, 0
        while size < len(stored) and count < len(self.given[number]):
            size += len(self.given[number][count])
            count += 1
        if b"".join(self.given[number][:count]) != stored:
            raise ViolationError(
                f"P2, P3: shard {number} has {len(stored)} bytes of entries that it was not given so"
            )
        return count

    def check_read_only(self) -> None:
        """Open what the medium holds for reading only: nothing is written, and the same is served as after `open`."""
        backend = Medium(self.medium.start, mappable=self.medium.mappable)
        backend.read_only = True
        volume = Volume.open(backend, ports=self.ports)
        with in_small():
            stores, _recoveries = open_shards_read_only(volume, range(len(self.given)), OPTIONS)
        for number, store in enumerate(stores):
            expected = contents(self.given[number])
            # What was put again since a hash store has it counts twice.
            if store.records < len(expected) or (store.records > len(expected) and not store.hash_stores):
                raise ViolationError(f"P2: shard {number} has {store.records} records when read only")
            if expected:
                self._check_lookups(number, store, sorted(expected), expected)

    def _check_lookups(
        self, number: int, store: LogStore, keys: list[bytes], expected: dict[bytes, bytes]
    ) -> None:
        rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        reader = Reader([store.index])
        found, payloads = reader.get_many(TYPE_HASH, rows, PAYLOAD_SIZE)
        served = {
            one: bytes(payload)
            for one, here, payload in zip(keys, found.tolist(), payloads, strict=True)
            if here
        }
        if served != expected:
            raise ViolationError(f"P2, P3: shard {number} serves {len(served)} keys otherwise than it holds")

    @property
    def superblock(self) -> Superblock:
        return self.volume.superblock

    # ---- what a caller does

    def append(self, shard: int = 0) -> None:
        """Put one record, under one of few keys."""
        self.value += 1
        self._give(shard, put(self.value % 3, self.value))

    def batch(self, shard: int = 0) -> None:
        """Put a batch that crosses a cluster."""
        self.value += 1
        self._give(shard, b"".join(put(100 + number, 1000 * self.value + number) for number in range(BATCH)))

    def delete(self, shard: int = 0) -> None:
        """Delete the key that was put last and is there, if there is one."""
        held = list(contents(self.given[shard]))
        doomed = held[-1] if held else key(0)
        before = self.given[shard]
        if held:
            self.given[shard] = (*before, bytes((35, TYPE_DELETE, TYPE_HASH)) + doomed)
        self._tell()
        rows = np.frombuffer(doomed, np.uint8).reshape(1, 32)
        self._or_full(lambda: self.group.delete(shard, TYPE_HASH, rows), shard, before)

    def _give(self, shard: int, batch: bytes) -> None:
        before = self.given[shard]
        self.given[shard] = (*before, batch)
        self._tell()
        stream = np.frombuffer(batch, np.uint8)
        self._or_full(lambda: self.group.append({shard: (stream, len(batch) // ENTRY_SIZE)}), shard, before)

    def _or_full(self, act: Callable[[], object], shard: int, before: History) -> None:
        try:
            act()
        except DiskFullError:
            self.given[shard] = before
            self._tell()

    def flush(self) -> None:
        self.group.flush()
        self.flushed = [len(given) for given in self.given]
        self._tell()

    def turn(self, shard: int = 0) -> None:
        """Let the next journal take the writes, as for a batch that does not fit the active one."""
        self._roll(shard)

    def roll(self, shard: int = 0) -> None:
        """As `turn`, and let the superblock say so, as housekeeping does a moment later."""
        if self._roll(shard):
            rolling.complete([self.group.shards[shard]])
            self.flushed[shard] = len(self.given[shard])
            self._tell()

    def _roll(self, shard: int, others: Sequence[Shard] = ()) -> bool:
        """Whether there was space for it."""
        journal = self.group.shards[shard].journal
        room = 1 if journal is None else journal.clusters - journal.writer.index
        stream = np.frombuffer(put(0, 0) * 81 * (room + 1), np.uint8)
        try:
            rolling.roll(self.group.shards[shard], stream, others=others)
        except DiskFullError:
            return False
        return True

    def turn_together(self) -> bool:
        """Let the next journals of all shards take the writes: those whose next is ready go with the first one."""
        # Journals of a few clusters are never so full that what is left is little.
        with patch.object(rolling, "_is_nearly_full", lambda each, _size: each.spare is not None):
            return self._roll(0, list(self.group.shards.values()))

    def roll_together(self) -> None:
        """As `turn_together`, and let the superblock say so for all of them at once."""
        shards = list(self.group.shards.values())
        due = [True, *(each.spare is not None and each.journal is not None for each in shards[1:])]
        if self.turn_together():
            rolling.complete(shards)
            self.flushed = [
                len(given) if one else flushed
                for given, flushed, one in zip(self.given, self.flushed, due, strict=True)
            ]
            self._tell()

    def onward(self, _shard: int = 0) -> None:
        """Let housekeeping complete rolls, and take the journals behind those with the same superblock write.

        However little is in them yet. What was put before the rolls is durable then; nobody is told.
        """

        def lacks_spare(shard: Shard, _part: float) -> bool:
            return shard.spare is None and shard.journal is not None and shard.journal.poison is None

        with patch.object(spares, "_lacks_spare", lacks_spare):
            rolling.complete_onward(list(self.group.shards.values()), self.group._flush_lock)

    def spares(self) -> None:
        """Make the next journals of all shards ready together."""
        try:
            make_spares(list(self.group.shards.values()))
        except DiskFullError:
            return

    def spare(self, shard: int = 0) -> None:
        """Make the next journal ready long before it is needed."""
        try:
            make_spare(self.group.shards[shard])
        except DiskFullError:
            return

    def pack(self, shard: int = 0) -> None:
        """Pack the oldest journals, all that are closed: whether it pays is another question."""
        self._pack(shard, oldest=True)

    def pack_newest(self, shard: int = 0) -> None:
        """Pack the closed journal that is newest: its deletions stay while something is older."""
        self._pack(shard, oldest=False)

    def _pack(self, shard: int, *, oldest: bool) -> None:
        closed = [extent for extent in self.volume.superblock.journals(shard) if extent.state == CLOSED]
        if not closed:
            return
        run = Run(tuple(closed if oldest else closed[-1:]), oldest=oldest)
        self.carry_out(shard, Packing(self.group.shards[shard], run, self.group.flush).carry_out)

    def clean(self, shard: int = 0) -> None:
        """Pack the oldest closed journal as on a full volume: what is left of its copy's space takes of the others."""
        closed = [extent for extent in self.volume.superblock.journals(shard) if extent.state == CLOSED]
        if closed:
            run = Run(tuple(closed[:1]), oldest=True)
            owner = self.group.shards[shard]
            self.carry_out(
                shard, Cleaning(owner, run, self.group.flush, next(iter(closed[1:]), None)).carry_out
            )

    def carry_out(self, shard: int, act: Callable[[], None], *, flushes: bool = True) -> None:
        """Change how a shard holds what it holds."""
        self._note_packed(shard)
        try:
            act()
        except DiskFullError:
            return
        if flushes:
            self.flushed = [len(given) for given in self.given]
            self._tell()

    def incarnate(self, shard: int = 0) -> None:
        """Turn the closed journals into a hash store."""
        run = choose_oldest(self.group.shards[shard])
        if run is not None:
            with in_small_parts():
                self.carry_out(shard, Incarnation(self.group.shards[shard], run, self.group.flush).carry_out)

    def merge(self, shard: int = 0) -> None:
        """Merge all hash stores, slice by slice."""
        while self.merge_slice(shard):
            pass

    def merge_slice(self, shard: int = 0) -> bool:
        """Merge a slice of the hash stores; False where there was nothing to merge, or no space."""
        found = self.group.shards[shard]
        before = found.store.hash_stores
        stores = choose_merge(by_store(before), everything=True)
        if stores:
            with in_small_parts():
                self.carry_out(shard, lambda: merge_slice(found, stores), flushes=False)
        return found.store.hash_stores != before

    def note(self) -> None:
        """Let a second go by and whoever keeps house look."""
        self.now += 2.0
        self.group.tick()

    def close(self) -> None:
        """Close the store cleanly and open it again."""
        with in_small():
            ends = self.group.end()
        self.volume.publish(CleanClose(ends))
        self.flushed = [len(given) for given in self.given]
        self._tell()
        self.open()

    def checkpoint(self) -> None:
        """Write the index of every shard to the medium while the store is open; what it holds is durable then."""
        with in_small():
            self.group.upkeep.checkpoint(list(self.group.shards.values()))
        self.flushed = [len(given) for given in self.given]
        self._tell()

    def kill(self) -> None:
        """Let the process die and a new one open the store."""
        self.open()


def reopened(image: Image, told: Told, *, mappable: bool = True, where: str = "") -> StoreLife:
    """Open what a crash left; a violation also where it does not open at all."""
    life = StoreLife(image, told, mappable=mappable)
    try:
        life.open()
    except ViolationError as error:
        raise ViolationError(f"{error}; {where}") from error
    except SiltstoneError as error:
        raise ViolationError(f"P5: {type(error).__name__} after a crash: {error}; {where}") from error
    return life
