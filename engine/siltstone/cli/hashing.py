"""The pool of hashing processes: slots of shared memory that go out with data and come back with digests."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from siltstone.cli import hashing_process
from siltstone.cli.hashing_process import DIGEST_SIZE, ORDER, SlotLayout
from siltstone.errors import StateError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

__all__ = ["HashPool", "Slot"]

_DATA_SIZE_MIN: Final = 1 << 20
_BLOCKS_MAX: Final = 4096
_PROCESSES_MAX: Final = 16
_SPARE_SLOTS: Final = 16
_SPARE_SIZE_MAX: Final = 32 << 20


class Slot:
    """One slot of the shared memory. Whoever took it from the pool owns it until it is given back.

    :param number: which
    :param data: room for the data of blocks, one behind the other
    :param lengths: (blocks_max,) their lengths [bytes]
    :param digests: (blocks_max, 32) their digests, once collected
    """

    __slots__ = ("data", "digests", "lengths", "number")

    def __init__(self, number: int, memory: memoryview, layout: SlotLayout) -> None:
        part = memory[number * layout.stride :][: layout.stride]
        self.number = number
        self.data = part[: layout.data_size]
        self.lengths: NDArray[np.uint32] = np.frombuffer(
            part[layout.lengths_offset :], np.uint32, count=layout.blocks_max
        )
        self.digests: NDArray[np.uint8] = np.frombuffer(
            part[layout.digests_offset :], np.uint8, count=DIGEST_SIZE * layout.blocks_max
        ).reshape(-1, DIGEST_SIZE)


class HashPool:
    """Hashing processes, one for each processor that this process may use.

    Slots are submitted and collected in the same order. One thread may submit while another one collects.

    :param hash_name: name of the content hash
    :param block_size_max: the longest block [bytes]
    """

    def __init__(self, hash_name: str, *, block_size_max: int, processes: int | None = None) -> None:
        count = processes or min(len(os.sched_getaffinity(0)), _PROCESSES_MAX)
        data_size = max(_DATA_SIZE_MIN, block_size_max)
        # Two for each process, one in work and one that waits; the others keep them all at work while the
        # store takes a batch, unless blocks are so long that this would take too much memory.
        spare = max(2, min(_SPARE_SLOTS, _SPARE_SIZE_MAX // data_size))
        self.layout = SlotLayout(2 * count + spare, data_size, _BLOCKS_MAX)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._submitted = 0
        self._collected = 0
        descriptor = os.memfd_create("siltstone-hashing")
        try:
            os.ftruncate(descriptor, self.layout.size)
            memory = memoryview(mmap.mmap(descriptor, self.layout.size))
            self.slots = [Slot(number, memory, self.layout) for number in range(self.layout.slots)]
            for _ in range(count):
                self._processes.append(self._start(descriptor, hash_name))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(descriptor)

    def _start(self, descriptor: int, hash_name: str) -> subprocess.Popen[bytes]:
        layout = self.layout
        numbers = (descriptor, layout.slots, layout.data_size, layout.blocks_max)
        return subprocess.Popen(
            [sys.executable, "-P", str(Path(hashing_process.__file__)), *map(str, numbers), hash_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(descriptor,),
            # Ctrl-C is for the process that owns the store; it ends the others when it is done.
            process_group=0,
        )

    def submit(self, slot: Slot, blocks: int) -> None:
        """Have the first `blocks` blocks of `slot` hashed."""
        process = self._processes[self._submitted % len(self._processes)]
        self._submitted += 1
        assert process.stdin is not None
        # A process that died is noticed when its answer is collected, in the order of the file.
        with suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), ORDER.pack(slot.number, blocks))

    def collect(self, slot: Slot, blocks: int) -> NDArray[np.uint8]:
        """Wait for the oldest slot that was not collected yet; return its (blocks, 32) digests.

        They lie in the slot and are the caller's until the slot is used again. StateError where the hashing
        process died.
        """
        process = self._processes[self._collected % len(self._processes)]
        self._collected += 1
        assert process.stdout is not None
        if os.read(process.stdout.fileno(), ORDER.size) != ORDER.pack(slot.number, blocks):
            status = process.wait()
            raise StateError(
                f"a hashing process (pid {process.pid}) ended with status {status} before its work was done",
                what="hashing process",
                state=f"ended with status {status}",
            )
        return slot.digests[:blocks]

    def close(self) -> None:
        """End the processes. Work that nobody collected is dropped."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            assert process.stdout is not None
            # Closed first, so that a process which is about to answer ends, too.
            process.stdout.close()
            process.wait()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
