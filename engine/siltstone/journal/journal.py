"""The journal alone: the operations of the RFC under their own names, over any backend, in either format."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from siltstone.errors import ClosedError, EndOfJournalError, EntryError, StateError
from siltstone.format.constants import DUMP_SIZE
from siltstone.format.entries import Entry, payload_bytes
from siltstone.format.superblock import dump_extent, parse_dump
from siltstone.journal.plain import PlainLog
from siltstone.journal.sealed_log import SealedLog
from siltstone.volume.allocator import round_to_erase_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from siltstone.format.seal import End
    from siltstone.format.superblock import Extent
    from siltstone.journal.blocks import EntryBlock
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.volume.backend import Backend


class Space(Protocol):
    """Where a journal gets its extent: :class:`siltstone.journal.space.BareSpace`, or the caller's own."""

    backend: Backend
    erase_block: int
    uuid: bytes

    def next_generation(self) -> int:
        """A number that no life of a journal here had before."""

    def allocate(self, size: int) -> Extent:
        """An extent of at least `size` bytes; DiskFullError where there is none."""

    def adopt(self, offset: int, length: int, generation: int) -> Extent:
        """An extent that was given out in an earlier process."""

    def release(self, extent: Extent) -> None:
        """Take an extent back."""


class Stopped(NamedTuple):
    """What must be kept of a sealed journal to find it again: which life it is in, and where that ended."""

    generation: int
    end: End


class Journal:
    """An append-only log of entries (type byte, payload) in one extent.

    :param space: where it gets its extent
    :param format: "sealed" survives crashes and finds damage; "plain" is the RFC's, byte for byte, for
        interchange and study

    Offsets are bytes from the start of the extent; a sealed journal's first entry is at 8192, behind its two
    tail slots. One thread at a time. What is appended is durable when a later :meth:`flush` returns. After a
    write or flush that failed, :attr:`poison` holds the error, and nothing more is taken.
    """

    dump_size = DUMP_SIZE

    def __init__(self, space: Space, *, format: Literal["sealed", "plain"] = "sealed") -> None:  # noqa: A002
        if format not in ("sealed", "plain"):
            raise StateError(f"format {format!r}: must be sealed or plain", what="format", state=str(format))
        self.space = space
        self.format = format
        self._extent: Extent | None = None
        self._log: PlainLog | SealedLog | None = None
        self._stopped = True
        self._closed = False

    # ---- space

    @property
    def is_allocated(self) -> bool:
        """Whether it has space on the medium."""
        return self._extent is not None

    @property
    def extent(self) -> Extent:
        """Its space; StateError where it has none."""
        if self._extent is None:
            raise StateError(
                "the journal has no space: allocate or parse first", what="journal", state="unallocated"
            )
        return self._extent

    def round_to_erase_blocks(self, size: int) -> int:
        """`size` bytes rounded up to whole erase blocks."""
        return round_to_erase_blocks(size, self.space.erase_block)

    def allocate(self, size: int) -> None:
        """Take space for `size` bytes, rounded up to erase blocks, and start empty; durable.

        The space is given back where preparing it fails.
        """
        self._check_open()
        if self._extent is not None:
            raise StateError("the journal has space already", what="journal", state="allocated")
        extent = self.space.allocate(size)
        try:
            self._start(extent)
        except BaseException:
            self.space.release(extent)
            self._extent = self._log = None
            raise

    def deallocate(self) -> None:
        """Give the space back; what was in it is gone."""
        self._check_open()
        self.space.release(self.extent)
        self._extent = self._log = None
        self._stopped = True

    def recycle(self) -> None:
        """Forget all entries and start empty in the same space; durable. None of them ever comes back.

        A sealed journal starts a new life, so that nothing need be erased; a plain one is overwritten.
        """
        self._check_open()
        old = self.extent
        if self.format == "sealed":
            self._start(self.space.adopt(old.offset, old.length, self.space.next_generation()))
        else:
            self._start(old)

    def _start(self, extent: Extent) -> None:
        if self.format == "plain":
            plain = PlainLog(self.space.backend, extent.offset, extent.length)
            plain.erase()
            self._log = plain
        else:
            self._log = SealedLog.fresh(self.space.backend, self.space.uuid, extent)
        self._extent = extent
        self._stopped = False

    # ---- appending

    @property
    def position(self) -> int:
        """Where the next entry goes if it fits its cluster."""
        return self._running().position

    @property
    def poison(self) -> Exception | None:
        """The failure after which nothing more is acknowledged, or None."""
        return None if self._log is None else self._log.poison

    def append(self, kind: int, payload: Buffer) -> int:
        """Append one entry and return its offset. JournalFullError where the journal ends; not durable yet."""
        return self._running().append(check_type(kind), payload_bytes(payload))

    def append_many(
        self, entries: Iterable[tuple[int, Buffer]] | np.ndarray[tuple[int], np.dtype[np.uint8]]
    ) -> list[int]:
        """Append entries and return their offsets: all, or none with JournalFullError. Not durable yet.

        :param entries: (type, payload) pairs; or entries packed one after another as they stand in a journal,
            as uint8, which goes without a call an entry in the sealed format

        In the sealed format they are one batch: after a crash all are there or none.
        """
        log = self._running()
        if isinstance(entries, np.ndarray):
            if entries.dtype != np.uint8 or entries.ndim != 1:
                raise EntryError(
                    f"packed entries of dtype {entries.dtype} and shape {entries.shape}: must be (n,) uint8"
                )
            return log.append_stream(np.ascontiguousarray(entries)) if len(entries) else []
        packed = [Entry(check_type(kind), payload_bytes(payload)) for kind, payload in map(_pair, entries)]
        if not packed:
            return []
        log.check_entries(packed)
        return log.append_stream(np.frombuffer(b"".join(entry.to_bytes() for entry in packed), np.uint8))

    @contextmanager
    def batch(self) -> Iterator[list[tuple[int, Buffer]]]:
        """A list to add (type, payload) pairs to; appended together when the block ends without an error.

        Nothing is appended, and nothing written, where it ends with one, or where they do not all fit.
        """
        entries: list[tuple[int, Buffer]] = []
        yield entries
        self.append_many(entries)

    def flush(self) -> None:
        """Return once the medium has all that was appended; nothing new: nothing is done."""
        self._running().flush()

    def stop(self) -> Stopped | None:
        """Flush, and take no more until :meth:`resume`; what a sealed journal needs to be found again."""
        log = self._running()
        log.flush()
        self._stopped = True
        return Stopped(self.extent.generation, log.end) if isinstance(log, SealedLog) else None

    def resume(self, where: int | Stopped) -> None:
        """Go on appending: in a plain journal at an offset found by a walk, in a sealed one at what stop returned.

        A sealed journal goes on only at the very end of a life that was stopped; DamageError where its log
        ends elsewhere. After a crash it does not go on at all: :meth:`recover` it, and use a fresh one.
        """
        self._check_open()
        if self.format == "plain":
            if not isinstance(where, int):
                raise StateError("a plain journal resumes at an offset", what="resume", state="plain")
            log = self._log if isinstance(self._log, PlainLog) else self._plain()
            log.resume(where)
            self._log = log
        else:
            if not isinstance(where, Stopped):
                raise StateError(
                    "a sealed journal resumes at what stop returned", what="resume", state="sealed"
                )
            old = self.extent
            if old.generation != where.generation:
                self._extent = self.space.adopt(old.offset, old.length, where.generation)
            self._log = SealedLog.resumed(self.space.backend, self.space.uuid, self.extent, where.end)
        self._stopped = False

    def recover(self, generation: int | None = None) -> JournalRecovery:
        """Find where a sealed journal of this generation ends after a crash; from then on it can be read.

        Raises DamageError where durable entries are missing. Writes nothing.
        """
        self._check_open()
        if self.format == "plain":
            raise StateError(
                "a plain journal cannot tell where it ends: walk it", what="recover", state="plain"
            )
        extent = self.extent
        if generation is not None and generation != extent.generation:
            extent = self._extent = self.space.adopt(extent.offset, extent.length, generation)
        log, found = SealedLog.recovered(self.space.backend, self.space.uuid, extent)
        self._log, self._stopped = log, True
        return found

    # ---- reading

    def read(self, offset: int) -> Entry:
        """The entry at `offset`; EndOfJournalError beyond the end (the RFC's -EFBIG)."""
        if offset < 0:
            raise EndOfJournalError(f"offset {offset} is negative", offset=offset, end=0)
        return self._readable().read(offset)

    def walk(self, start: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Each entry with its offset, in order, from offset `start` on; DamageError where it cannot go on."""
        log = self._readable()
        return log.walk() if start is None else log.walk(start)

    def walk_blocks(self) -> Iterator[EntryBlock]:
        """The entries of a sealed journal in blocks of up to 4 MiB, verified, as arrays; no call an entry."""
        log = self._readable()
        if not isinstance(log, SealedLog):
            raise StateError(
                "blocks are for sealed journals: walk a plain one", what="walk_blocks", state="plain"
            )
        return log.blocks()

    # ---- where it is

    def dump(self) -> bytes:
        """The RFC's 16 bytes: sector and size."""
        return dump_extent(self.extent.offset, self.extent.length)

    def parse(self, dump: bytes) -> None:
        """Take the space that :meth:`dump` named in an earlier process; nothing is read or written.

        Go on with :meth:`resume` or :meth:`recover`; a plain journal can be walked at once.
        """
        self._check_open()
        if self._extent is not None:
            raise StateError("the journal has space already", what="journal", state="allocated")
        if len(dump) != DUMP_SIZE:
            raise StateError(f"a dump has {DUMP_SIZE} bytes, not {len(dump)}", what="dump", state="wrong")
        offset, length = parse_dump(dump)
        if length == 0 or length % self.space.erase_block or offset + length > self.space.backend.size:
            raise StateError(
                f"dump names {length} bytes at {offset}: not whole erase blocks on a medium of"
                f" {self.space.backend.size} bytes",
                what="dump",
                state="wrong",
            )
        self._extent = self.space.adopt(offset, length, 0)
        if self.format == "plain":
            self._log = self._plain()

    def _plain(self) -> PlainLog:
        return PlainLog(self.space.backend, self.extent.offset, self.extent.length)

    # ---- life

    def close(self) -> None:
        """Forget buffers and caches; nothing is flushed, the backend stays open. Closing twice is allowed."""
        self._closed = True
        self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the journal is closed", what="journal")

    def _readable(self) -> PlainLog | SealedLog:
        self._check_open()
        _ = self.extent
        if self._log is None:
            raise StateError("the journal was not recovered or resumed yet", what="journal", state="parsed")
        return self._log

    def _running(self) -> PlainLog | SealedLog:
        log = self._readable()
        if self._stopped:
            raise StateError("the journal is stopped", what="journal", state="stopped")
        return log


def check_type(kind: int) -> int:
    """`kind` if it is a byte; EntryError for anything else."""
    if type(kind) is not int or not 0 <= kind <= 255:
        raise EntryError(f"entry type {kind!r:.80}: must be 0-255", type=kind)
    return kind


def _pair(given: object) -> tuple[int, Buffer]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise EntryError(f"entry {given!r:.80}: must be a (type, payload) pair")
    kind, payload = given
    return kind, payload
