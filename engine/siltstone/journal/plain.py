"""The RFC's own journal format, byte for byte: for interchange and study; nothing protects it from power loss.

After the QEMU RFC V8 03/24 "qcow2: Add journal" (June 2013). Two things differ on purpose: an entry has at
most 253 bytes, so that no END is ever due with 256 bytes left, and a walk that cannot go on says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import (
    DamageError,
    EndOfJournalError,
    EntryError,
    JournalFullError,
    PoisonedError,
    SiltstoneError,
)
from siltstone.format.constants import (
    CLUSTER_SIZE,
    ENTRY_HEADER_SIZE,
    ENTRY_SIZE_MAX,
    PLAIN_ENTRY_SIZE_MAX,
    TYPE_END,
    TYPE_INVALID,
    TYPE_NONE,
    TYPE_SKIP,
)
from siltstone.format.entries import Entry, payload_bytes
from siltstone.format.kernels import split_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from siltstone.volume.backend import Backend

_ERASED = b"\xff" * CLUSTER_SIZE
#: bytes compared or erased at once
_CHUNK = 1024 * 1024


class PlainLog:
    """One plain journal: `length` bytes at `offset` of a medium. One user at a time.

    Offsets that it takes and gives are bytes from the start of the journal.
    """

    def __init__(self, backend: Backend, offset: int, length: int) -> None:
        self.backend = backend
        self.offset = offset
        self.length = length
        #: where the next entry goes, unless its cluster has no room for it
        self.position = 0
        self._cluster = bytearray(_ERASED)  # the one that is written to
        self._start = -1  # its offset; none before erase or resume
        self._flushed = True
        self._cached: tuple[int, bytes] | None = None  # the last other cluster that was read
        #: why nothing more is taken, or None
        self.poison: SiltstoneError | None = None

    # ---- writing

    def erase(self) -> None:
        """Set every byte to 0xFF, durably, and start at the beginning."""
        for at in range(0, self.length, _CHUNK):
            self.backend.write(self.offset + at, b"\xff" * min(_CHUNK, self.length - at))
        self.backend.flush()
        self.position = self._start = 0
        self._cluster[:] = _ERASED
        self._flushed = True
        self._cached = None

    def append(self, kind: int, payload: Buffer) -> int:
        """Append one entry and return its offset; JournalFullError where the journal ends.

        A cluster that it leaves is written, closed by an END. As in the RFC the last cluster is closed too when
        an entry does not fit in it any more.
        """
        if self.poison is not None:
            self._guarded(self.backend.flush)
        data = payload_bytes(payload)
        size = check_entry(kind, len(data))
        if self.position >= self.length:
            raise self._full(size)
        if self.position % CLUSTER_SIZE + size + ENTRY_HEADER_SIZE >= CLUSTER_SIZE:
            self._close_cluster()
            if self.position >= self.length:
                raise self._full(size)
        at = self.position - self._start
        self._cluster[at : at + size] = bytes((size, kind)) + data
        self._flushed = False
        offset = self.position
        self.position += size
        return offset

    def check_entries(self, entries: Iterable[Entry]) -> None:
        """EntryError for the first that the format cannot hold."""
        for entry in entries:
            check_entry(entry.type, len(entry.payload))

    def append_stream(self, stream: NDArray[np.uint8]) -> list[int]:
        """Append packed entries; their offsets. JournalFullError before any is appended where not all fit."""
        starts = np.empty(len(stream) // 2, np.uint32)
        starts = starts[: split_entries(stream, starts)]
        data = stream.tobytes()
        entries = [
            Entry(data[at + 1], data[at + ENTRY_HEADER_SIZE : at + data[at]]) for at in starts.tolist()
        ]
        self.check_entries(entries)
        if not self.room(entry.size for entry in entries):
            raise self._full(len(data))
        return [self.append(entry.type, entry.payload) for entry in entries]

    def room(self, sizes: Iterable[int]) -> bool:
        """Whether entries of these sizes [bytes, headers included] all fit."""
        position = self.position
        for size in sizes:
            if position % CLUSTER_SIZE + size + ENTRY_HEADER_SIZE >= CLUSTER_SIZE:
                position += CLUSTER_SIZE - position % CLUSTER_SIZE
            if position >= self.length:
                return False
            position += size
        return True

    def _close_cluster(self) -> None:
        at = self.position - self._start
        self._cluster[at : at + ENTRY_HEADER_SIZE] = bytes((CLUSTER_SIZE - at, TYPE_END))
        self._flushed = False
        after = self._start + CLUSTER_SIZE
        if after < self.length:
            self._write_cluster()
            self._start = after
            self._cluster[:] = _ERASED
        self.position = after

    def _full(self, size: int) -> JournalFullError:
        return JournalFullError(
            f"the journal of {self.length} bytes is full; an entry of {size} does not fit",
            needed=size,
            room=0,
        )

    def _write_cluster(self) -> None:
        self._guarded(self.backend.write, self.offset + self._start, self._cluster)
        if self._cached is not None and self._cached[0] == self._start:
            self._cached = None

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        if self.poison is not None:
            raise PoisonedError(
                f"the journal at byte {self.offset}: an earlier write or flush failed ({self.poison})",
                what=f"journal at {self.offset}",
                cause=str(self.poison),
            )
        try:
            action(*arguments)
        except SiltstoneError as error:
            self.poison = error.to_keep()
            raise

    def flush(self) -> None:
        """Write the current cluster without ending it; the medium has all when it returns. Nothing new: a no-op."""
        if not self._flushed:
            self._write_cluster()
            self._guarded(self.backend.flush)
            self._flushed = True

    def resume(self, offset: int) -> None:
        """Go on appending at `offset`, found by a walk; what is behind it in its cluster is overwritten."""
        if not 0 <= offset <= self.length:
            raise EndOfJournalError(
                f"offset {offset} is not in a journal of {self.length} bytes", offset=offset, end=self.length
            )
        if offset % CLUSTER_SIZE > CLUSTER_SIZE - ENTRY_HEADER_SIZE:
            # No END fits there, so that no walk ever ends there.
            raise EntryError(f"offset {offset} is no end of entries: no header fits behind it", offset=offset)
        self.position = offset
        self._start = min(offset, self.length - 1) // CLUSTER_SIZE * CLUSTER_SIZE
        self._cluster[:] = self.backend.read(self.offset + self._start, CLUSTER_SIZE)
        self._flushed = True
        self._cached = None

    # ---- reading

    def read(self, offset: int) -> Entry:
        """The entry at `offset`, END included; from the write buffer or through a cache of one cluster."""
        if not 0 <= offset < self.length:
            raise EndOfJournalError(
                f"offset {offset} is not in a journal of {self.length} bytes", offset=offset, end=self.length
            )
        entry = self._entry(self._cluster_at(offset // CLUSTER_SIZE * CLUSTER_SIZE), offset)
        if entry is None:
            raise EndOfJournalError(f"nothing was written at offset {offset}", offset=offset, end=offset)
        return entry

    def walk(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """Each entry from `start` on with its offset, END left out; stops at what was never written.

        Raises DamageError, naming the offset, at a size that cannot be; and at the end where something is
        written behind it, so that what is missing is not passed over in silence.
        """
        offset = start
        while offset < self.length:
            entry = self._entry(self._cluster_at(offset // CLUSTER_SIZE * CLUSTER_SIZE), offset)
            if entry is None:
                self._check_erased(offset)
                break
            if entry.type != TYPE_END:
                yield offset, entry
            offset += entry.size
        self.end = offset

    def _cluster_at(self, start: int) -> Buffer:
        if start == self._start:
            return self._cluster
        if self._cached is None or self._cached[0] != start:
            self._cached = start, bytes(self.backend.read(self.offset + start, CLUSTER_SIZE))
        return self._cached[1]

    def _entry(self, cluster: Buffer, offset: int) -> Entry | None:
        return parse_entry(memoryview(cluster), offset)

    def _check_erased(self, end: int) -> None:
        """DamageError where anything but 0xFF is found behind `end`."""
        at = end
        while at < self.length:
            start = at // CLUSTER_SIZE * CLUSTER_SIZE
            data = bytes(self._cluster_at(start))[at - start :]
            at = start + CLUSTER_SIZE
            if data.count(0xFF) != len(data):
                found = at - len(data) + next(place for place, byte in enumerate(data) if byte != 0xFF)
                raise DamageError(
                    f"the journal ends at offset {end}, but something is written behind it, at offset {found}:"
                    " entries are missing (the RFC's code writes no END where 256 bytes are left)",
                    journal=None,
                    cluster=end // CLUSTER_SIZE,
                    offset=end,
                )


def check_entry(kind: int, payload_size: int) -> int:
    """The size of an entry with its header; EntryError where the plain format cannot hold it."""
    size = payload_size + ENTRY_HEADER_SIZE
    if (
        size > PLAIN_ENTRY_SIZE_MAX
        or kind in (TYPE_INVALID, TYPE_END, TYPE_SKIP, TYPE_NONE)
        or not 0 <= kind <= 255
    ):
        raise EntryError(
            f"an entry of {size} bytes, type {kind:#04x}: the plain format takes at most {PLAIN_ENTRY_SIZE_MAX}, and"
            " no types 0x00, END, SKIP, NONE",
            type=kind,
            size=size,
        )
    return size


def parse_entry(cluster: memoryview, offset: int) -> Entry | None:
    """The entry at byte `offset` of a journal, in its cluster; None where nothing was written.

    NONE is decided on the type byte alone: an END of 255 bytes has a size byte of 0xFF.
    """
    at = offset % CLUSTER_SIZE
    if at + ENTRY_HEADER_SIZE > CLUSTER_SIZE:
        raise _bad(offset, cluster[at], "no room for a header")
    size, kind = cluster[at], cluster[at + 1]
    if kind == TYPE_NONE:
        return None
    if size < ENTRY_HEADER_SIZE:
        raise _bad(offset, size, "too small")
    if at + size > CLUSTER_SIZE:
        raise _bad(offset, size, "runs past its cluster")
    if size > ENTRY_SIZE_MAX and kind != TYPE_END:
        raise _bad(offset, size, "too large")
    return Entry(kind, bytes(cluster[at + ENTRY_HEADER_SIZE : at + size]))


def _bad(offset: int, size: int, why: str) -> DamageError:
    return DamageError(
        f"no entry at offset {offset}: size {size} {why}",
        journal=None,
        cluster=offset // CLUSTER_SIZE,
        offset=offset,
    )
