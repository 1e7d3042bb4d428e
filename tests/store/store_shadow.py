"""A medium whose failing transfers are the worst that a real one can do, and what is left on it when the power goes.

The system's cache takes every write. What a flush covers reaches the medium. What a flush that fails should
have covered never does, though the cache goes on showing it and the next flush succeeds.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from store_faults import Faults, input_output_error

from siltstone.errors import DiskFullError
from siltstone.format.constants import SLOT_OFFSETS

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from typing_extensions import Buffer

    from siltstone.volume.backend import Backend

#: how a transfer fails: nothing of it is done, or a part
FAILURES = ("EIO", "half, EIO", "ENOSPC", "half, ENOSPC")
#: no failure: the transfer is done, and somebody presses Ctrl-C before the next line of the program
INTERRUPT = "interrupt"


class Shadow(Faults):
    """Faults that keep, beside the file, what the medium under it would hold.

    :param path: the file; it holds what the cache would show
    :param fail_at: number of the transfer (write or flush, from 1) that fails once; 0 for none
    :param failure: how
    :param sticky: whether every later flush fails too, as the backends that come with Siltstone see to
    """

    def __init__(self, path: Path, fail_at: int = 0, failure: str = "EIO", *, sticky: bool = False) -> None:
        super().__init__()
        self.path = path
        self.fail_at = fail_at
        self.failure = failure
        self.sticky = sticky
        self.failed = False
        self.transfers = 0
        self.medium = bytearray(path.read_bytes()) if path.exists() else bytearray()
        self.pending: list[tuple[int, bytes]] = []
        self.write = self._write
        self.flush = self._flush
        self._lost = False
        self._superblocks: dict[int, bytes] = {}

    def _write(self, inner: Backend, offset: int, data: Buffer) -> None:
        raw = bytes(data)
        if offset in SLOT_OFFSETS:
            sequence = int.from_bytes(raw[16:24], "big")
            assert self._superblocks.setdefault(sequence, raw) == raw, (
                f"two superblocks have sequence {sequence}"
            )
        self.transfers += 1
        if self.transfers != self.fail_at:
            self.pending.append((offset, raw))
            return
        self.failed = True
        if self.failure == INTERRUPT:
            inner.write(offset, raw)
            self.pending.append((offset, raw))
            raise KeyboardInterrupt
        if self.failure.startswith("half"):
            part = raw[: len(raw) // 2 // 512 * 512]
            inner.write(offset, part)
            self.pending.append((offset, part))
        if self.failure.endswith("ENOSPC"):
            raise DiskFullError(
                "faulty: no space",
                url="faulty",
                operation="write",
                offset=offset,
                needed=len(raw),
                errno=errno.ENOSPC,
            )
        raise input_output_error("write", offset, len(raw))

    def _flush(self, _inner: Backend) -> None:
        self.transfers += 1
        if self.transfers == self.fail_at and self.failure == INTERRUPT:
            self.failed = True
            self._reach(self.pending)
            self.pending.clear()
            raise KeyboardInterrupt
        if self.transfers == self.fail_at or (self.sticky and self._lost):
            self.failed = self._lost = True
            self.pending.clear()
            raise input_output_error("flush")
        self._reach(self.pending)
        self.pending.clear()

    def _reach(self, writes: list[tuple[int, bytes]]) -> None:
        end = max([len(self.medium), *(offset + len(raw) for offset, raw in writes)])
        self.medium.extend(bytes(end - len(self.medium)))
        for offset, raw in writes:
            self.medium[offset : offset + len(raw)] = raw

    def cut_power(self, chance: random.Random) -> None:
        """Leave in the file what the medium holds: of what no flush covered any part, in any order."""
        chosen = [write for write in self.pending if chance.random() < 0.5]
        chance.shuffle(chosen)
        self._reach(chosen)
        size = self.path.stat().st_size
        self.medium.extend(bytes(max(0, size - len(self.medium))))
        self.path.write_bytes(self.medium[:size])
