"""Every state of the sectors that a flush would have covered, for journals and for the superblock."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

from crash_states import crash_points
from journal_life import PORTS, JournalChecker, JournalLife, ViolationError, journal_extent
from medium import JUNK, SLOT_KEPT, Image, Medium

from siltstone.errors import SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_MIN, UNFLUSHED_CLUSTERS_MAX
from siltstone.format.superblock import RecordedType
from siltstone.journal import recovery, sealed
from siltstone.shard import space
from siltstone.volume import allocator
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone.format.superblock import Superblock

Scenario = Callable[[JournalLife], JournalLife]
CLUSTERS = 12
#: of unflushed clusters, where a scenario is about the bound
BOUND = 2
FULL_CLUSTER = (254,) * 15 + (252,)  # 4062 bytes: not one more fits
STALE = random.Random(5).randbytes(CLUSTERS * CLUSTER_SIZE)


def singles(life: JournalLife) -> JournalLife:
    for _number in range(4):
        life.append(50)
        life.flush()
    return life


def notes(life: JournalLife) -> JournalLife:
    for size in (50, 2, 254):
        life.append(size)
        life.flush()
        life.flush(note=True)
    life.append(50)
    life.append(50)
    return life


def crossing(life: JournalLife) -> JournalLife:
    """Batches that close one cluster each, flushed."""
    for _number in range(4):
        life.append(*[50] * 60)
        life.flush()
    life.append(50)
    return life


def far_batches(life: JournalLife) -> JournalLife:
    """Batches over several clusters, of which some hold no boundary."""
    life.append(50)
    life.append(*[200] * 45)
    life.flush()
    life.append(*[254] * 33)
    life.append(3)
    life.flush()
    return life


def exactly_full(life: JournalLife) -> JournalLife:
    """Clusters and batches that end together: a boundary at a cluster's start."""
    life.append(*FULL_CLUSTER)
    life.flush()
    life.append(*FULL_CLUSTER)
    life.append(*FULL_CLUSTER)
    life.flush()
    life.append(2)
    return life


def unflushed(life: JournalLife) -> JournalLife:
    """Several batches between two flushes."""
    life.append(*[50] * 10)
    life.flush()
    for _number in range(3):
        life.append(*[50] * 40)
    life.flush()
    life.append(*[100] * 50)
    return life


def to_the_brim(life: JournalLife) -> JournalLife:
    """Up to the last cluster, which is only ever a tail."""
    for _number in range(4):
        life.append(*FULL_CLUSTER)
    life.flush()
    life.flush(note=True)
    for _number in range(CLUSTERS - 2 - 4):
        life.append(*FULL_CLUSTER)
    life.flush()
    return life


def bounded(life: JournalLife) -> JournalLife:
    """Batches larger than the bound of unflushed clusters: flushes without a tail copy."""
    life.append(50)
    life.flush()
    life.append(*[254] * 70)
    life.append(*[50] * 30)
    life.flush()
    life.append(*[254] * 40)
    return life


def resumed(life: JournalLife) -> JournalLife:
    life.append(*[50] * 70)
    life = life.closed(note=False)
    life.append(*[50] * 30)
    life.flush()
    life.append(50)
    return life


def resumed_twice(life: JournalLife) -> JournalLife:
    life.append(50)
    life = life.closed()
    life.append(*[50] * 170)
    life = life.closed(note=False)
    life.append(*[50] * 100)
    life.append(50)
    life.flush()
    return life


SCENARIOS = (
    singles, notes, crossing, far_batches, exactly_full, unflushed, to_the_brim, bounded, resumed, resumed_twice,
)  # fmt: skip


@contextmanager
def bound_of(scenario: Scenario) -> Iterator[None]:
    """Lower the bound of unflushed clusters where a scenario is about it."""
    name = "UNFLUSHED_CLUSTERS_MAX"
    bound = BOUND if scenario is bounded else UNFLUSHED_CLUSTERS_MAX
    with patch.object(sealed, name, bound), patch.object(recovery, name, bound):
        yield


def check_scenario(scenario: Scenario, limit: int, seed: int = 0, *, honest: bool = True) -> int:
    """Recover every state of every flush, at most about `limit` of each; how many there were.

    With an odd `seed` the medium was not empty before; with `honest` False it lies about flushes.
    """
    chance = random.Random(f"{scenario.__name__} {seed}")
    image = Image.blank(CLUSTERS * CLUSTER_SIZE)
    if seed % 2:
        image = Image(image.durable[: -len(STALE)] + STALE)
    with bound_of(scenario):
        life = scenario(JournalLife(image, journal_extent(CLUSTERS), honest=honest))
        checker = JournalChecker(life)
        states = reported = rotten = 0
        for point in life.points():
            checker.load(point.durable)
            for overlay in point.sector_states(limit, chance):
                checker.check(point, overlay)
                states += 1
                if states % 7 == 0:
                    reported += checker.check_rot(point, overlay, chance)
                    rotten += 1
    if rotten > 100 and life.journal.position.cluster > 3 and not reported:
        raise ViolationError(f"P4: damage was never reported in {rotten} states of {scenario.__name__}")
    return states


# ---- the superblock


def superblock_starts(chance: random.Random) -> Iterator[tuple[str, Image]]:
    """Media with a volume whose two slots are alike, or one of them damaged, or one write behind."""
    medium = Medium(Image.blank(12 * ERASE_BLOCK_MIN))
    volume = Volume.create(medium, shards=3, erase_block=ERASE_BLOCK_MIN, ports=PORTS)
    for _number in range(12):
        volume.publish(lambda superblock: wider(allocator.take(superblock, ERASE_BLOCK_MIN)[0]))
        # Each next one finds no free extent left.
        volume.publish(lambda superblock: space.as_empty(superblock, superblock.extents[-1], 0)[0])
    behind = medium.at_rest.durable
    volume.publish(wider)
    alike = medium.at_rest.durable
    yield "alike", Image(alike)
    for slot in (0, 1):
        at = slot * SLOT_KEPT
        damaged = bytearray(alike)
        damaged[at + 512 : at + 1024] = chance.choice(JUNK)
        yield f"slot {slot} damaged", Image(bytes(damaged))
        mixed = bytearray(alike)
        mixed[at : at + SLOT_KEPT] = behind[at : at + SLOT_KEPT]
        yield f"slot {slot} behind", Image(bytes(mixed))


def wider(superblock: Superblock) -> Superblock:
    """Name one entry type more, at length, so that a slot spans many sectors."""
    number = 0x10 + len(superblock.entry_types)
    known = RecordedType(f"{number} " + "long name " * 5, 1, "a distribution")
    return replace(superblock, entry_types={**superblock.entry_types, number: known})


def check_superblocks(limit: int, writes: int = 3, seed: int = 0) -> int:
    """Cut power in every write of the superblock from every start: the one before or the new one is there, whole."""
    chance = random.Random(seed)
    states = 0
    for name, start in superblock_starts(chance):
        medium = Medium(start)
        volume = Volume.open(medium, ports=PORTS)
        published = {volume.superblock.sequence: volume.superblock}
        told = [(0, volume.superblock.sequence)]
        for number in range(writes):
            superblock = volume.publish(wider if number % 2 else volume_epoch)
            published[superblock.sequence] = superblock
            told.append((len(medium.log), superblock.sequence))
        for point in crash_points(start, medium.log):
            if not point.widest:
                continue
            flushed = max(sequence for operations, sequence in told if operations <= point.number)
            for overlay in point.sector_states(limit, chance):
                states += 1
                image = point.after_power_cut(overlay)
                try:
                    found = Volume.open(Medium(image), ports=PORTS).superblock
                except SiltstoneError as error:
                    raise ViolationError(
                        f"P1: {name}, operation {point.number}: no superblock: {error}"
                    ) from error
                if found.sequence not in (flushed, flushed + 1) or found != published[found.sequence]:
                    raise ViolationError(
                        f"P1: {name}, operation {point.number}: {found.sequence}, not {flushed}"
                    )
        for slot in (0, 1):
            damaged = bytearray(medium.at_rest.durable)
            damaged[slot * SLOT_KEPT + 700] ^= 1
            if Volume.open(Medium(Image(damaged)), ports=PORTS).superblock != volume.superblock:
                raise ViolationError(f"P4: {name}: one damaged slot lost a superblock")
    return states


def volume_epoch(superblock: Superblock) -> Superblock:
    """What an opening for writing changes."""
    return replace(superblock, epoch=superblock.epoch + 1, clean=False)
