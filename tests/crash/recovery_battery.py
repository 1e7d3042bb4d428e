"""Recovery cut off at every operation, and the recovery after it again: the same contents in the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from crash_states import crash_points
from journal_life import ViolationError
from medium import FLUSH, HEAD, Discard, Image, Medium, Write
from store_life import StoreLife, Told, reopened
from store_operations import OPERATIONS

from siltstone.errors import MediumError, SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_MIN
from siltstone.format.seal import parse_seal

if TYPE_CHECKING:
    from collections.abc import Sequence

#: what lies before the recovery: few entries and many, spares, rolls, lives that ended cleanly or not
WORKLOADS: tuple[tuple[str, ...], ...] = (
    (),
    ("append",),
    ("append", "flush", "append", "flush", "note"),
    ("batch", "batch", "flush", "batch"),
    ("append", "batch", "flush", "spare", "delete", "batch"),
    ("batch",) * 17 + ("flush", "batch"),
    ("batch", "roll", "append", "flush", "roll", "batch"),
    ("append", "close", "batch", "flush", "batch"),
    ("append", "flush", "kill", "append", "kill"),
    ("append", "close", "spare", "delete"),
    ("batch",) * 17 + ("roll", "append", "spare", "kill", "batch"),
    ("batch", "turn", "append", "batch", "spare", "batch"),
    ("append", "flush", "turn", "batch", "flush", "turn", "batch"),
)
#: room for three journals and their reserves, or for hardly one
ROOMY, TIGHT = 12 * ERASE_BLOCK_MIN, 5 * ERASE_BLOCK_MIN


def lives_written(log: Sequence[object]) -> set[tuple[int, int]]:
    """(place, generation) of each cluster that a process wrote into an extent."""
    found = set()
    for write in log:
        if isinstance(write, Write) and not isinstance(write, Discard) and write.offset >= HEAD:
            for at in range(0, len(write.data), CLUSTER_SIZE):
                seal = parse_seal(write.data[at : at + CLUSTER_SIZE])
                found.add(((write.offset + at - HEAD) // ERASE_BLOCK_MIN, seal.generation))
    return found


class RecoveryBattery:
    """Recovers what workloads left, cuts that off, recovers again, cuts that off.

    :param limit: states of one power cut in the first recovery; in the second two
    :param nested: of how many of the recoveries after a cut the operations are cut as well: one in so many
    """

    def __init__(self, limit: int, nested: int, seed: int = 0) -> None:
        self.limit = limit
        self.nested = nested
        self.chance = random.Random(seed)
        self.states = 0
        self._extents_max = 0

    def run(self, workload: tuple[str, ...], shards: int = 1, room: int = ROOMY) -> None:
        """Cut one workload off at a few places, and the recovery of each at every place."""
        life = StoreLife.formatted(Image.blank(room * shards), shards=shards)
        for name in workload:
            OPERATIONS[name](life)
            if shards > 1 and name in ("append", "batch", "turn", "roll", "spare", "delete"):
                OPERATIONS[name](life, self.chance.randrange(1, shards))  # type: ignore[call-arg]
        where = " ".join(workload)
        points = [point.number for point in crash_points(life.medium.start, life.medium.log)]
        chosen = {points[-1], *self.chance.sample(points[len(points) // 2 :], 2)}
        for point in crash_points(life.medium.start, life.medium.log):
            if point.number in chosen:
                told = life.told_at(point.number)
                if told.operations == 0:
                    continue  # it was being formatted
                overlay = self.chance.choice([*point.block_states(20, self.chance)])
                self.interrupt(point.after_power_cut(overlay), told, f"{where}: cut at {point.number}")
                self.interrupt(point.after_death(), told, f"{where}: death at {point.number}")

    def interrupt(self, image: Image, told: Told, where: str, level: int = 1) -> None:
        """Recover; cut that off everywhere; recover again: the same."""
        whole = reopened(image, told, where=where)
        settled = Told(0, tuple(whole.given), tuple(whole.flushed))
        for point in crash_points(whole.medium.start, whole.medium.log):
            # What a dead process left may still vanish until the barrier has covered it.
            covered = not image.pending or FLUSH in whole.medium.log[: point.number]
            known = settled if covered else told
            states = [point.after_death()]
            if point.widest:
                states += map(
                    point.after_power_cut, point.block_states(self.limit if level == 1 else 2, self.chance)
                )
            for state in states:
                self.states += 1
                here = f"{where}; recovery {level} interrupted at {point.number}"
                again = reopened(state, known, mappable=bool(self.states % 2), where=here)
                if known is settled and again.given != whole.given:
                    raise ViolationError(f"P2: recovery repeated has other contents; {here}")
                if lives_written(whole.medium.log[: point.number]) & lives_written(again.medium.log):
                    raise ViolationError(f"P3: two processes wrote one life of a journal; {here}")
                if level == 1 and self.states % self.nested == 0:
                    self.interrupt(state, known, here, level=2)

    def fail(self, image: Image, told: Told, where: str) -> None:
        """Let each operation of the recovery fail: it is reported, and the next opening finds the same.

        A discard is only a hint: one that fails may be passed over.
        """
        whole = reopened(image, told, where=where)
        for number in range(len(whole.medium.log)):
            self.states += 1
            error = MediumError(f"EIO in operation {number}", url="fake:", operation="write", errno=5)
            life = StoreLife(image, told)
            life.medium = Medium(image, failures={number: error})
            try:
                life.open()
            except SiltstoneError:
                pass
            else:
                if not isinstance(whole.medium.log[number], Discard):
                    raise ViolationError(
                        f"P6: operation {number} of the recovery failed, and nobody heard; {where}"
                    )
            known = Told(0, tuple(whole.given), tuple(whole.flushed)) if number else told
            reopened(life.medium.at_rest, known, where=f"{where}; failed at {number}")


def crash_loop(openings: int, workload: tuple[str, ...], seed: int = 0) -> list[int]:
    """Open, write a little, die, again and again: bytes of extents that are in use after each opening."""
    chance = random.Random(seed)
    life = StoreLife.formatted(Image.blank(ROOMY))
    sizes = []
    for _number in range(openings):
        for name in workload:
            OPERATIONS[name](life)
        points = list(crash_points(life.medium.start, life.medium.log))
        point = points[-1]
        overlay = chance.choice([*point.block_states(10, chance)])
        life = reopened(point.after_power_cut(overlay), life.told_at(point.number))
        sizes.append(sum(extent.length for extent in life.superblock.extents if extent.state != "free"))
    return sizes
