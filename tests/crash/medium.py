"""A fake medium that forgets what no flush covered. Its contract of faults:

- A read shows every write that returned, in order (the page cache of a living kernel).
- A flush that returned covers every write that returned before it. Nothing else is durable.
- When power is cut, each 512-byte sector that a write touched since the last flush is what it was, what any of
  those writes made it, or junk; each for itself, whatever the order of the writes. Junk is also possible where
  the write would have changed nothing. All other sectors stay as they are.
- When only the process dies, every write that returned is there, and of the one under way any whole sectors up
  to some point; all of it still waits for a flush.
- What was discarded is junk, now and later.
- An operation can be told to fail. After a `Crash` nothing moves any more: the process is dead. A flush that
  failed fails again.
- It never grows, and never tells a lie, unless `honest` is False: then a flush returns and covers nothing.

To keep images small only the first 16 KiB of the two superblock slots are there, and what lies behind 1 MiB.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siltstone.errors import (
    ClosedError,
    DiskFullError,
    LockedError,
    MediumError,
    ReadOnlyError,
    SiltstoneError,
)
from siltstone.format.constants import EXTENTS_OFFSET, SECTOR_SIZE, SLOT_SIZE
from siltstone.volume.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

#: bytes of each superblock slot that the medium has
SLOT_KEPT = 16 * 1024
HEAD = 2 * SLOT_KEPT
JUNK = tuple(
    [random.Random(number).randbytes(SECTOR_SIZE) for number in range(61)]
    + [bytes(SECTOR_SIZE), b"\xff" * SECTOR_SIZE, b"\x01" * SECTOR_SIZE]
)


class Crash(BaseException):
    """The process is gone: nobody in it may catch this."""


class LateInterrupt(KeyboardInterrupt):
    """As a failure: the operation is carried out, then somebody presses Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Write:
    """`data` went to byte `offset` of the image."""

    offset: int
    data: bytes


class Discard(Write):
    """What a discard did to the image."""


#: a flush that covered what came before it
FLUSH = "flush"
Operation = Write | str


@dataclass(frozen=True, slots=True)
class Image:
    """A medium at rest: what is durable, and what still waits for a flush."""

    durable: bytes | bytearray
    pending: tuple[Write, ...] = ()

    @classmethod
    def blank(cls, extents: int, fill: bytes = b"\0") -> Image:
        """A medium with room for `extents` bytes of extents, all of it `fill`."""
        return cls(fill * ((HEAD + extents) // len(fill)))


class Medium(Backend):
    """The fake. `log` is what was done to it since it was made: writes in order, and `FLUSH`.

    :param image: what it starts from; not changed
    :param mappable: whether `map` gives a live view, or None
    :param failures: number of an operation (write, flush, discard; from 0) to what it raises instead
    :param honest: see the contract
    """

    def __init__(
        self,
        image: Image,
        *,
        mappable: bool = True,
        failures: dict[int, BaseException] | None = None,
        honest: bool = True,
    ) -> None:
        self.url = "fake:"
        self.read_only = False
        self.alignment = 512
        self.erase_block = 0
        self.start = image
        self.bytes = bytearray(image.durable)
        self.pending = list(image.pending)
        for write in self.pending:
            self.bytes[write.offset : write.offset + len(write.data)] = write.data
        self.log: list[Operation] = []
        self.failures = failures or {}
        self.broken_reads: set[int] = set()
        self.mappable = mappable
        self.honest = honest
        #: writes, flushes and discards so far, failed ones too
        self.operations = 0
        self._dead: BaseException | None = None
        self._locked = self._closed = False

    @property
    def size(self) -> int:
        return len(self.bytes) - HEAD + EXTENTS_OFFSET

    @property
    def at_rest(self) -> Image:
        """The medium as a process that dies now leaves it."""
        durable = bytearray(self.start.durable)
        settle(durable, self.start.pending, self.log)
        return Image(durable, tuple(self.pending))

    def where(self, offset: int, length: int) -> tuple[int, int]:
        """Where in the image a range of the volume lies, and how much of it from its start on the image has."""
        if length < 0 or not 0 <= offset <= self.size - length:
            raise MediumError(
                f"{self.url}: {length} bytes at {offset} of {self.size}",
                url=self.url,
                operation="transfer",
                offset=offset,
                length=length,
            )
        if offset >= EXTENTS_OFFSET:
            return offset - EXTENTS_OFFSET + HEAD, length
        slot, inside = divmod(offset, SLOT_SIZE)
        return slot * SLOT_KEPT + inside, max(0, min(length, SLOT_KEPT - inside))

    # ---- the contract of a backend

    def lock(self) -> None:
        self._check(writing=False)
        if self._locked:
            raise LockedError(f"{self.url} is locked", url=self.url, holder="this test")
        self._locked = True

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes:
        self._check(writing=False)
        at, kept = self.where(offset, length)
        for broken in self.broken_reads:
            if offset <= broken < offset + length:
                raise MediumError(
                    f"{self.url}: EIO at {offset}",
                    url=self.url,
                    operation="read",
                    offset=offset,
                    length=length,
                    errno=5,
                )
        return bytes(self.bytes[at : at + kept]).ljust(length, b"\0")

    def write(self, offset: int, data: Buffer) -> None:
        self._check()
        raw = bytes(data)
        self.where(offset, len(raw))
        failure = self._next()
        if isinstance(failure, PartialError):
            raw = raw[: failure.length]
        elif failure is not None and not isinstance(failure, LateInterrupt):
            raise failure
        self._put(offset, raw)
        if isinstance(failure, LateInterrupt):
            raise failure
        if isinstance(failure, PartialError):
            raise DiskFullError(f"{self.url}: full", url=self.url, needed=len(raw), operation="write")

    def flush(self) -> None:
        self._check()
        failure = self._next()
        if isinstance(failure, SiltstoneError):
            self._dead = failure
        if failure is not None and not isinstance(failure, LateInterrupt):
            raise failure
        if self.honest:
            self.log.append(FLUSH)
            self.pending.clear()
        if failure is not None:
            raise failure

    def discard(self, offset: int, length: int) -> None:
        self._check()
        failure = self._next()
        if failure is not None:
            raise failure
        junk = random.Random(self.operations).choice(JUNK)
        self._put(offset, junk * (length // SECTOR_SIZE), Discard)

    def grow(self, size: int) -> None:
        self._check()
        if size > self.size:
            raise DiskFullError(f"{self.url}: {size} bytes are needed", url=self.url, needed=size - self.size)

    def map(self, offset: int, length: int) -> memoryview | None:
        self._check(writing=False)
        at, kept = self.where(offset, length)
        return (
            memoryview(self.bytes)[at : at + length].toreadonly()
            if self.mappable and kept == length
            else None
        )

    def close(self) -> None:
        self._closed = True

    # ---- inside

    def _put(self, offset: int, raw: bytes, kind: type[Write] = Write) -> None:
        # Both slots at once: two writes, as far as the image has them.
        for start in (offset, SLOT_SIZE) if offset < SLOT_SIZE < offset + len(raw) else (offset,):
            at, kept = self.where(start, len(raw) - (start - offset))
            piece = raw[start - offset :][:kept]
            self.bytes[at : at + kept] = piece
            write = kind(at, piece)
            self.pending.append(write)
            self.log.append(write)

    def _next(self) -> BaseException | None:
        failure = self.failures.get(self.operations)
        self.operations += 1
        if isinstance(failure, Crash):
            self._dead = failure
        return failure

    def _check(self, *, writing: bool = True) -> None:
        if self._dead is not None and (writing or isinstance(self._dead, Crash)):
            raise self._dead
        if self._closed:
            raise ClosedError(f"{self.url} is closed", what=self.url)
        if writing and self.read_only:
            raise ReadOnlyError(f"{self.url} is open for reading only", reason="asked for")


class PartialError(Exception):
    """As a failure of a write: its first `length` bytes arrive, then there is no space."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


def settle(durable: bytearray, pending: Iterable[Write], log: Iterable[Operation]) -> list[Write]:
    """Carry out a log on `durable`, which gets what flushes covered; what still waits at its end."""
    waiting = list(pending)
    for operation in log:
        if isinstance(operation, Write):
            waiting.append(operation)
            continue
        for write in waiting:
            durable[write.offset : write.offset + len(write.data)] = write.data
        waiting = []
    return waiting
