"""Every workload of a few operations on a small store, cut off at every operation of its medium."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from crash_states import crash_points
from journal_life import ViolationError
from medium import FLUSH, Image
from store_life import StoreLife, reopened
from store_operations import OPERATIONS, TOGETHER

from siltstone.format.constants import CLUSTER_SIZE, ERASE_BLOCK_MIN, SECTOR_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crash_states import CrashPoint
    from store_life import Told

EXTENTS = 10 * ERASE_BLOCK_MIN
_ACTS = {**OPERATIONS, **TOGETHER}
#: what is done in a second life, after a crash
SECOND_LIVES = (
    ("append", "flush"),
    ("batch", "flush"),
    ("batch", "batch", "flush", "append"),
    ("roll", "append"),
)


def workloads(length: int) -> Iterator[tuple[str, ...]]:
    """Every sequence of exactly `length` operations."""
    return itertools.product(OPERATIONS, repeat=length)


def base_image(fill: bytes = b"\0", room: int = EXTENTS, shards: int = 1) -> tuple[Image, Told]:
    """A store that was formatted, opened once and left at once."""
    life = StoreLife.formatted(Image.blank(room, fill), shards=shards)
    return life.medium.at_rest, life.told[-1]


class OrderBattery:
    """Runs workloads and recovers what crashes in their last operation leave.

    :param limit: states of one power cut
    :param depth: one state in so many is also read only, worked with, closed, and crashed a second time
    :param room: for extents [bytes]
    """

    def __init__(
        self,
        limit: int,
        depth: int = 10,
        seed: int = 0,
        fill: bytes = b"\0",
        room: int = EXTENTS,
        shards: int = 1,
    ) -> None:
        self.limit = limit
        self.depth = depth
        self.chance = random.Random(seed)
        self.start = base_image(fill, room, shards)
        self.states = 0

    def run(self, workload: tuple[str, ...]) -> None:
        """Crash in the last operation; what is left before it belongs to a shorter workload."""
        image, told = self.start
        life = StoreLife(image, told)
        life.open()
        first = 0
        for number, name in enumerate(workload):
            if number == len(workload) - 1 and number:
                first = len(life.medium.log)
            _ACTS[name](life)
        where = " ".join(workload)
        for point in crash_points(life.medium.start, life.medium.log, first):
            told = life.told_at(point.number)
            if point.widest:
                for overlay in point.block_states(self.limit, self.chance):
                    self._cut(
                        point.after_power_cut(overlay),
                        told,
                        f"{where}: cut at {point.number} {self.brief(overlay)}",
                    )
            self._die(point, told, f"{where}: death at {point.number}")

    @staticmethod
    def brief(overlay: list[tuple[int, bytes]]) -> str:
        return str([(at, len(data)) for at, data in overlay])

    def _cut(self, image: Image, told: Told, where: str) -> None:
        self.states += 1
        life = reopened(image, told, mappable=bool(self.states % 2), where=where)
        if self.states % self.depth == 0:
            life.check_read_only()
            self._live_on(life, where)

    def _die(self, point: CrashPoint, told: Told, where: str) -> None:
        """The process dies; the next one opens, and power goes once it has answered."""
        images = [point.after_death()]
        if point.pending and len(point.pending[-1].data) > SECTOR_SIZE:
            last = point.pending[-1]
            step = SECTOR_SIZE if self.chance.random() < 0.5 else min(CLUSTER_SIZE, len(last.data) // 2)
            images.append(point.after_death(self.chance.randrange(0, len(last.data), step)))
        for image in images:
            self.states += 1
            life = reopened(image, told, where=where)
            durable = Image(life.medium.at_rest.durable)
            self.states += 1
            again = reopened(durable, life.told[-1], where=f"{where}, then a power cut")
            if again.given != life.given:
                raise ViolationError(
                    f"P7: served {sum(map(len, life.given))} batches, then lost some; {where}"
                )
            if self.chance.randrange(self.depth) == 0:
                self._cut_opening(life, told, where)

    def _cut_opening(self, life: StoreLife, told: Told, where: str) -> None:
        """Cut power while the process after a dead one opens the store."""
        for point in crash_points(life.medium.start, life.medium.log):
            if point.widest:
                # Until the first flush has returned, what the dead process wrote may still vanish.
                known = life.told[-1] if FLUSH in life.medium.log[: point.number] else told
                for overlay in point.block_states(9, self.chance):
                    self.states += 1
                    here = f"{where}; the next opening cut at {point.number}"
                    reopened(point.after_power_cut(overlay), replace(known, operations=0), where=here)

    def _live_on(self, life: StoreLife, where: str) -> None:
        """Work with a recovered store, crash again; close it, open it: the same contents."""
        workload = self.chance.choice(SECOND_LIVES)
        first = len(life.medium.log)
        for name in workload:
            OPERATIONS[name](life)
        where = f"{where}; second life {' '.join(workload)}"
        points = [
            point.number for point in crash_points(life.medium.start, life.medium.log, first) if point.widest
        ]
        chosen = set(self.chance.sample(points, min(3, len(points))))
        for point in crash_points(life.medium.start, life.medium.log, first):
            if point.number in chosen:
                for overlay in point.block_states(4, self.chance):
                    self.states += 1
                    reopened(point.after_power_cut(overlay), life.told_at(point.number), where=where)
        expected = list(life.given)
        life.close()
        if life.given != expected:
            raise ViolationError(f"P1: a clean close lost something; {where}")
        life.kill()
        if life.given != expected:
            raise ViolationError(f"P1: the opening after a clean close lost something; {where}")
