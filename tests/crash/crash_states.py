"""What a crash can leave: the states of the sectors that no flush covered, all of them or a seeded choice."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medium import JUNK, Image, Write

from siltstone.format.constants import CLUSTER_SIZE, SECTOR_SIZE

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from medium import Operation

#: what to lay over the durable bytes, in this order: (offset in the image, bytes)
Overlay = list[tuple[int, bytes]]


@dataclass(slots=True)
class CrashPoint:
    """Between two operations of a log.

    :param number: operations done
    :param durable: what is durable here; the next point changes it in place
    :param pending: writes that no flush covered
    :param widest: whether a flush or the end comes next, so that what a power cut can leave at the points
        before, back to the last flush, it can leave here as well
    """

    number: int
    durable: bytearray
    pending: list[Write]
    widest: bool

    # ---- power cuts

    def sector_states(self, limit: int, chance: random.Random) -> Iterator[Overlay]:
        """Each touched sector old, new or junk: every combination, or `limit` of them."""
        choices = self._sector_choices(chance)
        if math.prod(len(contents) for _at, contents in choices) <= limit:
            offsets = [at for at, _contents in choices]
            for state in itertools.product(*(contents for _at, contents in choices)):
                yield list(zip(offsets, state, strict=True))
            return
        for number in range(limit):
            if number % 2:
                yield [(at, chance.choice(contents)) for at, contents in choices]
            else:
                yield self._mixed(chance)

    def block_states(self, limit: int, chance: random.Random) -> Iterator[Overlay]:
        """Each touched 4 KiB block as any write left it, or torn: every combination, or `limit` of them."""
        blocks = self._blocks()
        if math.prod(len(versions) + 1 for versions in blocks.values()) > limit:
            for _number in range(limit):
                yield self._mixed(chance)
            return
        for state in itertools.product(*(range(len(versions) + 1) for versions in blocks.values())):
            overlay: Overlay = []
            for (at, versions), chosen in zip(blocks.items(), state, strict=True):
                if chosen < len(versions):
                    overlay.append((at, versions[chosen]))
                else:
                    overlay += torn(at, versions, chance)
            yield overlay

    def _sectors(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for write in self.pending:
            for at in range(write.offset, write.offset + len(write.data), SECTOR_SIZE):
                sector = write.data[at - write.offset : at - write.offset + SECTOR_SIZE]
                versions = found.setdefault(at, [bytes(self.durable[at : at + SECTOR_SIZE])])
                if sector not in versions:
                    versions.append(sector)
        return found

    def _sector_choices(self, chance: random.Random) -> list[tuple[int, list[bytes]]]:
        """Sectors that a write left as they were can only become junk, and one a block tells as much as all."""
        choices = []
        unchanged = set()
        for at, versions in self._sectors().items():
            if len(versions) == 1:
                block = at // CLUSTER_SIZE
                if block in unchanged:
                    continue
                unchanged.add(block)
            choices.append((at, [*versions, chance.choice(JUNK)]))
        return choices

    def _blocks(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for write in self.pending:
            for at in range(write.offset, write.offset + len(write.data), CLUSTER_SIZE):
                block = write.data[at - write.offset : at - write.offset + CLUSTER_SIZE]
                versions = found.setdefault(at, [bytes(self.durable[at : at + len(block)])])
                if block not in versions:
                    versions.append(block)
        return found

    def _mixed(self, chance: random.Random) -> Overlay:
        """Block by block: most of them whole, so that what depends on several of them is met often."""
        overlay: Overlay = []
        tear = chance.choice((0.02, 0.15, 0.5))
        for at, versions in self._blocks().items():
            if chance.random() < tear:
                overlay += torn(at, versions, chance)
            else:
                overlay.append((at, chance.choice(versions)))
        return overlay

    def after_power_cut(self, overlay: Overlay) -> Image:
        """The medium as the cut left it."""
        image = bytearray(self.durable)
        lay(image, overlay)
        return Image(image)

    # ---- deaths of the process

    def after_death(self, upto: int | None = None) -> Image:
        """The medium as a process left it that died here, or `upto` bytes into the write that came last."""
        pending = self.pending
        if upto is not None:
            last = pending[-1]
            pending = [*pending[:-1], Write(last.offset, last.data[:upto])]
        return Image(bytes(self.durable), tuple(pending))


def torn(at: int, versions: Sequence[bytes], chance: random.Random) -> Overlay:
    """A block of which each sector is of any version; one is junk, mostly where the versions differ."""
    starts = range(0, len(versions[0]), SECTOR_SIZE)
    sectors = [chance.choice(versions)[start : start + SECTOR_SIZE] for start in starts]
    changed = [
        number
        for number, start in enumerate(starts)
        if len({version[start : start + SECTOR_SIZE] for version in versions}) > 1
    ]
    if changed and chance.random() < 0.7:
        sectors[chance.choice(changed)] = chance.choice(JUNK)
    elif chance.random() < 0.7:
        sectors[chance.randrange(len(sectors))] = chance.choice(JUNK)
    return [(at + start, sector) for start, sector in zip(starts, sectors, strict=True)]


def lay(image: bytearray, overlay: Overlay) -> None:
    """Lay what a crash left over an image."""
    for at, data in overlay:
        image[at : at + len(data)] = data


def crash_points(start: Image, log: Sequence[Operation], first: int = 0) -> Iterator[CrashPoint]:
    """Every point of a log from operation `first` on."""
    point = CrashPoint(0, bytearray(start.durable), list(start.pending), widest=False)
    for number in range(len(log) + 1):
        point.number = number
        point.widest = number == len(log) or not isinstance(log[number], Write)
        if number >= first:
            yield point
        if number == len(log):
            return
        operation = log[number]
        if isinstance(operation, Write):
            point.pending = [*point.pending, operation]
            continue
        for write in point.pending:
            point.durable[write.offset : write.offset + len(write.data)] = write.data
        point.pending = []
