"""Read ahead: a thread that reads files into slots, cuts them, and sends the slots to be hashed."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from siltstone.cli.sizes import printable
from siltstone.cli.walking import Note, Source, Tally, Unreadable
from siltstone.format.constants import SECTOR_SIZE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from siltstone.cli.cutting import Cutter
    from siltstone.cli.hashing import HashPool, Slot

__all__ = ["Event", "Load", "Reader"]

_EVENTS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Load:
    """A slot that was filled and submitted, in the order of the files.

    :param slot: where the data lies; to be given back to the reader
    :param lengths: (n,) lengths of the blocks [bytes]
    :param first_logical_sects: (n,) where in its file each block begins [sectors]
    :param size: of all its blocks [bytes]
    """

    slot: Slot
    lengths: NDArray[np.uint32]
    first_logical_sects: NDArray[np.uint64]
    size: int


Event: TypeAlias = "Load | Unreadable | Note"


class Stopped(Exception):  # noqa: N818 - no error: how the thread leaves what it is doing
    """The reader was told to stop."""


class Reader:
    """Reads, cuts and submits, in a thread of its own, as far ahead as there are slots.

    :param found: the files, as the walk finds them
    :param tally: where what could not be read is counted
    """

    def __init__(
        self,
        found: Generator[Source | Unreadable | Note, None, None],
        pool: HashPool,
        cutter: Cutter,
        tally: Tally,
    ) -> None:
        self._found = found
        self._pool = pool
        self._cutter = cutter
        self._tally = tally
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue(_EVENTS_MAX)
        self._free: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        for slot in pool.slots:
            self._free.put(slot)
        self._stopping = threading.Event()
        self._slot: Slot | None = None
        self._filled = 0
        self._lengths: list[int] = []
        # For each run of blocks from one file: how many, and what to add to a place in the slot to have the
        # one in the file [bytes]. Arrays are made of them once a slot, not once a file.
        self._runs: list[int] = []
        self._shifts: list[int] = []
        # A read that never returns must not keep the process alive that was told to end.
        self._thread = threading.Thread(target=self._run, name="siltstone-reader", daemon=True)

    def events(self) -> Iterator[Event]:
        """Start reading; yield what happens, in order. Each load's slot is given back by :meth:`release`."""
        self._thread.start()
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def release(self, slot: Slot) -> None:
        """Give a slot back, to be filled again."""
        self._free.put(slot)

    def stop(self) -> None:
        """Have the thread end, and wait until it has. What it read and nobody took is dropped."""
        self._stopping.set()
        self._free.put(None)
        while self._thread.is_alive():
            try:
                self._events.get(timeout=0.05)
            except queue.Empty:
                continue
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with closing(self._found):
                for found in self._found:
                    self._take(found)
            self._submit()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that takes the events
            self._events.put(error)
        finally:
            self._events.put(None)

    def _take(self, found: Source | Unreadable | Note) -> None:
        if isinstance(found, Source):
            try:
                self._read(found)
            finally:
                os.close(found.descriptor)
        else:
            self._tell(found)
        if self._stopping.is_set():
            raise Stopped

    def _tell(self, event: Event) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._events.put(event)

    def _read(self, source: Source) -> None:
        offset = 0
        while offset < source.size:
            slot = self._slot_with_room(source.size - offset)
            wanted = min(len(slot.data) - self._filled, source.size - offset)
            data = slot.data[self._filled : self._filled + wanted]
            try:
                got = _read_fully(source.descriptor, data, offset)
            except OSError as error:
                self._tally.unreadable += 1
                reason = f"{error.strerror}, at offset {offset}"
                self._tell(Unreadable(printable(source.name), reason))
                return
            end = got < wanted or offset + got == source.size
            taken = self._add_blocks(slot, self._cutter.cut(data[:got], end=end), offset)
            offset += taken
            if got < wanted and taken == got:
                self._tally.changed += 1
                self._tell(
                    Note(f"{printable(source.name)}: became shorter while it was read, at offset {offset}")
                )
                return

    def _slot_with_room(self, left: int) -> Slot:
        """Return the slot that is being filled, or the next one where no whole block is sure to fit it."""
        slot = self._slot
        if slot is not None:
            room = len(slot.data) - self._filled
            if room >= min(left, self._cutter.size_max) and len(self._lengths) < len(slot.lengths):
                return slot
            self._submit()
        slot = self._free.get()
        if slot is None or self._stopping.is_set():
            raise Stopped
        self._slot = slot
        return slot

    def _add_blocks(self, slot: Slot, lengths: list[int], offset: int) -> int:
        """Take as many of the blocks as the slot has room to list; return how long they are [bytes]."""
        room = len(slot.lengths) - len(self._lengths)
        if len(lengths) > room:
            del lengths[room:]
        size = sum(lengths)
        self._lengths += lengths
        self._runs.append(len(lengths))
        self._shifts.append(offset - self._filled)
        self._filled += size
        return size

    def _submit(self) -> None:
        slot, blocks = self._slot, len(self._lengths)
        if slot is None or not blocks:
            return
        lengths = np.array(self._lengths, np.uint32)
        slot.lengths[:blocks] = lengths
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        offsets = starts + np.repeat(np.array(self._shifts, np.int64), self._runs)
        self._pool.submit(slot, blocks)
        load = Load(slot, lengths, (offsets // SECTOR_SIZE).astype(np.uint64), self._filled)
        self._slot = None
        self._filled = 0
        self._lengths, self._runs, self._shifts = [], [], []
        self._tell(load)


def _read_fully(descriptor: int, data: memoryview, offset: int) -> int:
    """Read until `data` is full or the file ends; return how many bytes there were."""
    got = 0
    while got < len(data):
        count = os.preadv(descriptor, [data[got:]], offset + got)
        if count == 0:
            break
        got += count
    return got
