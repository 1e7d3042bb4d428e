"""New lives on old ground: journals in extents full of an earlier one, volumes on devices full of an old store."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crash_states import crash_points
from journal_life import OTHER_UUID, PORTS, UUID, JournalChecker, JournalLife, ViolationError, journal_extent
from medium import HEAD, JUNK, Image, Medium
from store_contents import stored_in
from store_life import StoreLife, reopened
from store_operations import OPERATIONS

from siltstone.errors import DamageError, ForeignVolumeError
from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_MIN, SECTOR_SIZE
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from store_life import Told

CLUSTERS = 10
GENERATION = 1 << 33 | 7


@dataclass(frozen=True, slots=True)
class OldLife:
    """Whose clusters were there before: of an earlier generation, another journal or another volume."""

    uuid: bytes
    number: int
    generation: int


OLD_LIVES = (
    OldLife(UUID, 3, 7),  # alike in the low 32 bits, which are all that a seal shows
    OldLife(UUID, 3, GENERATION - 1),
    OldLife(UUID, 4, GENERATION),
    OldLife(OTHER_UUID, 3, GENERATION),
)


def old_image(old: OldLife, clusters: int, chance: random.Random) -> bytes:
    """An extent that this life filled to `clusters` log clusters and a tail, its `durable` far on."""
    extent = journal_extent(CLUSTERS, old.generation, old.number)
    life = JournalLife(Image.blank(CLUSTERS * CLUSTER_SIZE), extent, uuid=old.uuid)
    while life.journal.writer.index < clusters:
        life.append(*[chance.choice((50, 254))] * chance.randrange(20, 30))
        life.flush()
    life.append(50)
    life.flush(note=chance.random() < 0.5)
    return bytes(life.medium.bytes)


class OldGround:
    """Images of extents with something old in them. Made once; each case takes some."""

    def __init__(self, chance: random.Random) -> None:
        self._images = [old_image(old, clusters, chance) for old in OLD_LIVES for clusters in (0, 1, 2, 4, 6)]

    def image(self, chance: random.Random) -> Image:
        """One old life, or of each cluster another one; erased in part, or not at all."""
        if chance.random() < 0.5:
            ground = bytearray(chance.choice(self._images))
        else:
            ground = bytearray(self._images[0])
            for at in range(HEAD, len(ground), CLUSTER_SIZE):
                ground[at : at + CLUSTER_SIZE] = chance.choice(self._images)[at : at + CLUSTER_SIZE]
        unit = chance.choice((SECTOR_SIZE, CLUSTER_SIZE))
        erased = chance.choice((0.0, 0.0, 0.3, 0.8))
        filler = chance.choice(JUNK) * (unit // SECTOR_SIZE)
        for at in range(HEAD, len(ground), unit):
            if chance.random() < erased:
                ground[at : at + unit] = filler
        return Image(ground)


def check_recycled(cases: int, seed: int = 0) -> int:
    """Live anew in recycled extents, cut power: only the new life's batches are there."""
    chance = random.Random(seed)
    ground = OldGround(chance)
    states = 0
    while states < cases:
        life = JournalLife(ground.image(chance), journal_extent(CLUSTERS, GENERATION))
        for _number in range(chance.randrange(4)):
            life.append(*chance.choice(([50], [2], [254] * 17, [254] * 30, [50] * 90, [50] * 160)))
            if chance.random() < 0.6:
                life.flush(note=chance.random() < 0.3 and life.journal.is_flushed)
        checker = JournalChecker(life)
        for point in life.points():
            checker.load(point.durable)
            for overlay in point.sector_states(12, chance):
                checker.check(point, overlay)
                states += 1
    return states


# ---- formatting


class OldStore:
    """A device full of an old store, with what it held."""

    def __init__(self, seed: int) -> None:
        life = StoreLife.formatted(Image.blank(8 * ERASE_BLOCK_MIN))
        for name in (
            "batch",
            "append",
            "flush",
            "roll",
            "batch",
            "delete",
            "append",
            "flush",
            "batch",
            "append",
        )[seed:]:
            OPERATIONS[name](life)
        life.flush()
        self.image = Image(life.medium.at_rest.durable)
        self.told: Told = replace(life.told[-1], operations=0)
        self.uuid = life.superblock.uuid


def outcome(image: Image, old: OldStore) -> str:
    """What is on a device now: "nothing", "damage", the "old" store, whole, or the "new" one, empty."""
    try:
        volume = Volume.open(Medium(image), ports=PORTS)
    except ForeignVolumeError:
        return "nothing"
    except DamageError:
        return "damage"
    if volume.superblock.uuid == old.uuid:
        reopened(image, old.told, where="the old store after a format that was cut off")
        return "old"
    # Everything that the new store can find on the device must be its own, and it has nothing yet.
    life = StoreLife(image, shards=1)
    life.open()
    if stored_in(life.group.shards[0]) or life.group.shards[0].store.records:
        raise ViolationError("P3: a new store has entries")
    return "new"


def check_format(cases: int, seed: int = 0) -> dict[str, int]:
    """Format a device full of an old store, cut power, lose the erase or a part of it; how each case ended.

    Before the format has returned the old store may still be there, whole. When it has returned the new one
    is there. Never are they mixed.
    """
    chance = random.Random(seed)
    ended = dict.fromkeys(("nothing", "damage", "old", "new"), 0)
    olds = [OldStore(number) for number in range(3)]
    states = 0
    while states < cases:
        old = chance.choice(olds)
        medium = Medium(old.image)
        ports = replace(PORTS, random_bytes=lambda size: OTHER_UUID[:size])
        Volume.create(medium, shards=1, erase_block=ERASE_BLOCK_MIN, ports=ports)
        erase = chance.choice(("whole", "whole", "lost", "partial"))
        log = list(medium.log)
        if erase != "whole":
            # The first two writes zero what was there. The medium says it did, and did not, or in part.
            log[0:2] = [] if erase == "lost" else [log[chance.randrange(2)]]
        for point in crash_points(medium.start, log):
            if not point.widest:
                continue
            for overlay in point.sector_states(6, chance):
                end = outcome(point.after_power_cut(overlay), old)
                states += 1
                ended[end] += 1
                where = f"format with the erase {erase}, cut after operation {point.number} of {len(log)}"
                if point.number == len(log) and end != "new":
                    raise ViolationError(f"P3: {end} after a whole {where}")
                if end == "damage" and erase == "whole":
                    raise ViolationError(f"P3: two volumes mixed: {where}")
    return ended


def check_new_store(cases: int, seed: int = 0) -> int:
    """Work with a new store on a device full of an old one, cut power: nothing of the old one is ever there."""
    chance = random.Random(seed)
    states = 0
    while states < cases:
        old = OldStore(chance.randrange(3))
        image = old.image
        ports = replace(PORTS, random_bytes=lambda size: OTHER_UUID[:size])
        medium = Medium(image)
        Volume.create(medium, shards=1, erase_block=ERASE_BLOCK_MIN, ports=ports)
        life = StoreLife(medium.at_rest)
        life.open()
        for _number in range(chance.randrange(1, 6)):
            OPERATIONS[chance.choice(list(OPERATIONS))](life)
        for point in crash_points(life.medium.start, life.medium.log):
            if point.widest:
                for overlay in point.block_states(6, chance):
                    reopened(
                        point.after_power_cut(overlay), life.told_at(point.number), where="on an old device"
                    )
                    states += 1
    return states
