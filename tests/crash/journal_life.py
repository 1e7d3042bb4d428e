"""One life of one sealed journal on a fake medium, and what its caller was told at each moment."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from crash_states import crash_points, lay
from medium import HEAD, Image, Medium

from siltstone.errors import DamageError
from siltstone.format.constants import CLUSTER_SIZE, EXTENTS_OFFSET, USED_MAX
from siltstone.format.seal import End, Position, seals_of
from siltstone.format.superblock import ACTIVE, KIND_JOURNAL, Extent
from siltstone.journal import recovery
from siltstone.journal.log_reader import LogReader
from siltstone.journal.sealed import SealedJournal
from siltstone.volume.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crash_states import CrashPoint

    from siltstone.journal.recovery import JournalRecovery

UUID = bytes(range(16))
OTHER_UUID = bytes(range(16, 32))
#: no clock runs and nothing is random
PORTS = Ports(clock=lambda: 0.0, wall_time=lambda: 1.7e9, random_bytes=lambda size: UUID[:size])


class ViolationError(AssertionError):
    """A promise was broken: which, and in which state."""


def entry(size: int, number: int) -> bytes:
    """An entry of `size` bytes that no other number gives."""
    if size == 2:
        return bytes((2, 0x20 + number % 64))
    return bytes((size, 0x02)) + random.Random(number).randbytes(size - 2)


def journal_extent(clusters: int, generation: int = 7, number: int = 3) -> Extent:
    """An active journal of `clusters` clusters, slots included, at the start of the extents."""
    return Extent(
        number,
        EXTENTS_OFFSET,
        clusters * CLUSTER_SIZE,
        kind=KIND_JOURNAL,
        state=ACTIVE,
        order=1,
        generation=generation,
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller knew once `operations` were done.

    :param issued: batches that were appended or are being appended
    :param flushed: how many of them a flush covered that returned
    :param flushed_before: how many a flush before that one covered; damage to these never goes unseen
    """

    operations: int
    issued: int
    flushed: int
    flushed_before: int


class JournalLife:
    """Appends and flushes as a shard does, and keeps the books.

    :param extent: with `end` set where a clean close left it
    :param resumed: the life that was closed cleanly at that end
    """

    def __init__(
        self,
        image: Image,
        extent: Extent,
        *,
        uuid: bytes = UUID,
        resumed: JournalLife | None = None,
        honest: bool = True,
    ) -> None:
        self.medium = Medium(image, honest=honest)
        self.extent = extent
        self.uuid = uuid
        self.batches: list[bytes] = list(resumed.batches) if resumed else []
        self._flushed = self._flushed_before = len(self.batches)
        self.told: list[Told] = []
        if resumed is None:
            self.journal = SealedJournal(self.medium, uuid, extent, self.medium.flush)
            self.journal.prepare()
            self.medium.flush()
        else:
            assert extent.end is not None
            tail = resumed.journal.writer.tail_bytes()
            self.journal = SealedJournal(
                self.medium, uuid, extent, self.medium.flush, end=extent.end, tail=tail
            )
        #: from here on the superblock calls it active
        self.first = len(self.medium.log)
        self._tell()

    def _tell(self) -> None:
        self.told.append(Told(len(self.medium.log), len(self.batches), self._flushed, self._flushed_before))

    def append(self, *sizes: int) -> None:
        """Append entries of these sizes as one batch."""
        first = 1000 * len(self.batches)
        batch = b"".join(entry(size, first + number) for number, size in enumerate(sizes))
        self.batches.append(batch)
        self._tell()
        self.journal.append_stream(np.frombuffer(batch, np.uint8))

    def flush(self, *, note: bool = False) -> None:
        """Flush what is new; with `note` write the idle note."""
        appended = len(self.batches)
        if self.journal.begin_flush(note=note):
            self.medium.flush()
            self.journal.end_flush()
            self._flushed_before, self._flushed = self._flushed, appended
            self._tell()

    def told_at(self, operations: int) -> Told:
        """What the caller knew once so many operations were done."""
        return next(told for told in reversed(self.told) if told.operations <= operations)

    def closed(self, note: bool = True) -> JournalLife:
        """Close it cleanly and go on in it."""
        self.flush()
        if note:
            self.flush(note=True)
        extent = replace(self.extent, end=self.journal.end)
        return JournalLife(self.medium.at_rest, extent, uuid=self.uuid, resumed=self)

    def points(self) -> Iterator[CrashPoint]:
        """Where power may be cut: each holds what the points before it do."""
        return (
            point for point in crash_points(self.medium.start, self.medium.log, self.first) if point.widest
        )


class JournalChecker:
    """Recovers a journal from many states of one medium, cheaply, and compares with what its caller was told."""

    def __init__(self, life: JournalLife) -> None:
        self.life = life
        self.medium = Medium(Image(bytes(len(life.medium.bytes))))
        self.stream = b"".join(life.batches)
        sizes = np.cumsum([0, *map(len, life.batches)]).tolist()
        self.batch_at = {size: number for number, size in enumerate(sizes)}
        self.sizes = sizes

    def load(self, durable: bytes | bytearray) -> None:
        """Start from these bytes."""
        self.medium.bytes[:] = durable

    def check(self, point: CrashPoint, overlay: list[tuple[int, bytes]]) -> int:
        """Recover the state that `overlay` makes of the bytes loaded, and put them back; how many batches are there."""
        lay(self.medium.bytes, overlay)
        try:
            found, count = self.recovered()
            told = self.life.told_at(point.number)
            if not told.flushed <= count <= told.issued:
                raise ViolationError(
                    f"P1: {count} batches are there; {told} was told; {self.describe(point, overlay)}"
                )
            if found.end.sequence != count:
                raise ViolationError(f"P2: {count} batches, but commit sequence {found.end.sequence}")
        except DamageError as error:
            raise ViolationError(
                f"P5: a crash was taken for damage: {error}; {self.describe(point, overlay)}"
            ) from error
        finally:
            self.restore(point, overlay)
        return count

    def restore(self, point: CrashPoint, overlay: list[tuple[int, bytes]]) -> None:
        """Undo an overlay."""
        for at, data in overlay:
            self.medium.bytes[at : at + len(data)] = point.durable[at : at + len(data)]

    def recovered(self) -> tuple[JournalRecovery, int]:
        """What recovery finds in the medium as it is, and how many batches that is; DamageError where it refuses."""
        found = recovery.recover(self.medium, self.life.uuid, self.life.extent, clean=False)
        content = self.content(found.end)
        if not self.stream.startswith(content):
            raise ViolationError(f"P2, P3: what is there up to {found.end} is not what was appended")
        count = self.batch_at.get(len(content))
        if count is None:
            raise ViolationError(f"P2: a batch is there in part: {len(content)} bytes of {self.sizes}")
        if (found.cut_bytes > 0) != (found.cut_entries > 0) or (found.cut_bytes > 0 and not found.reason):
            raise ViolationError(f"P4: what was cut is not reported: {found}")
        return found, count

    def content(self, end: End) -> bytes:
        """The packed entries up to `end`."""
        reader = LogReader(self.medium, self.life.uuid, self.life.extent)
        pieces = []
        for _first, data in reader.chunks(end.cluster):
            used = seals_of(data)["used"].tolist()
            pieces += [data[number * CLUSTER_SIZE :][:size] for number, size in enumerate(used)]
        last, _slot = reader.last_cluster(end)
        return b"".join([*pieces, last[: end.byte]])

    def position_of(self, batches: int) -> Position:
        """Where the log ends behind so many batches."""
        used = index = at = 0
        while at < self.sizes[batches]:
            size = self.stream[at]
            if used + size > USED_MAX:
                index, used = index + 1, 0
            used += size
            at += size
        return Position(index, used)

    def check_rot(self, point: CrashPoint, overlay: list[tuple[int, bytes]], chance: random.Random) -> bool:
        """Damage one flushed log cluster of a state as well; whether it was reported.

        What only the last flush covered may be cut as a torn end; what an earlier one covered may not.
        """
        told = self.life.told_at(point.number)
        last = self.position_of(told.flushed)
        if last.cluster == 0:
            return False
        cluster = chance.randrange(last.cluster)
        lay(self.medium.bytes, overlay)
        at = HEAD + (2 + cluster) * CLUSTER_SIZE
        before = bytes(self.medium.bytes[at : at + CLUSTER_SIZE])
        self.medium.bytes[at + chance.randrange(CLUSTER_SIZE)] ^= 1 << chance.randrange(8)
        try:
            _found, count = self.recovered()
        except DamageError:
            return True
        else:
            if count < told.flushed_before:
                raise ViolationError(f"P4: {count} batches after damage to cluster {cluster}; told {told}")
            return False
        finally:
            self.medium.bytes[at : at + CLUSTER_SIZE] = before
            self.restore(point, overlay)

    def describe(self, point: CrashPoint, overlay: Sequence[tuple[int, bytes]]) -> str:
        """The state, for people."""
        where = [(at - HEAD, len(data)) for at, data in overlay]
        return f"power cut after operation {point.number} of {len(self.life.medium.log)}; sectors at {where}"
