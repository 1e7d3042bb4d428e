"""What the core knows of one shard that a worker has: what is on its way to it, and what surely still fits."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from siltstone.index.pending import Pending


class Ledger:
    """One shard of one worker process.

    A batch that surely fits is sent without waiting for an answer, and readers find it in `pending` until the
    worker's index has it. One that may not fit is sent and waited for, so that "disk full" is told to the call
    that it is about. Sends are ordered by the process's lock; progress comes from whoever reads its pipe.

    :param shard: its number
    :param pending: where readers look before they look in the index
    """

    def __init__(self, shard: int, pending: Pending) -> None:
        self.shard = shard
        self.pending = pending
        self._sequence = 0
        self._lock = threading.Lock()
        self._under_way: deque[tuple[int, int, int]] = deque()
        self._bytes = self._records = 0  # of what is under way
        self._room = self._records_room = 0  # as of the last news
        self._news = 0

    def surely_fits(self, size: int, records: int) -> bool:
        """Whether a batch fits behind everything that is under way."""
        with self._lock:
            return self._bytes + size <= self._room and self._records + records <= self._records_room

    def next_sequence(self) -> int:
        """The number of the next batch: known before anybody can see the batch, so that it can be cancelled."""
        self._sequence += 1
        return self._sequence

    def send(self, sequence: int, stream: NDArray[np.uint8], records: int, *, visible: bool) -> None:
        """The batch of a sequence is about to be sent. With `visible` readers find it from here on."""
        if visible:
            self.pending.add(sequence, stream)
        with self._lock:
            self._under_way.append((sequence, len(stream), records))
            self._bytes += len(stream)
            self._records += records

    def cancel(self, sequence: int) -> None:
        """The batch may not have been sent after all: no reader finds it any more, unless the worker has it."""
        self.pending.cancel(sequence)

    def progress(self, number: int, sequence: int, room: int, records: int) -> None:
        """The worker has dealt with what was sent up to a sequence, as news of this number say.

        :param room: bytes of entries that surely still fit without more space
        :param records: keys that the index surely still takes
        """
        with self._lock:
            if number < self._news:
                return  # older than what is known
            self._news = number
            while self._under_way and self._under_way[0][0] <= sequence:
                _sequence, size, keys = self._under_way.popleft()
                self._bytes -= size
                self._records -= keys
            self._room, self._records_room = room, records
        self.pending.retire(sequence)

    def nothing_fits(self) -> None:
        """Until the next progress every batch is waited for."""
        with self._lock:
            self._room = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes of entries under way."""
        return self._bytes
