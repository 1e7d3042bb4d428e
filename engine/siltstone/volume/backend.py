"""What a backend is: one flat, growable or fixed range of bytes on some medium.

A backend knows nothing of superblocks, journals or entries. It moves bytes, says when they are durable, and
refuses to touch what is not ours. Third parties subclass :class:`Backend`, register it through the
``siltstone_backends`` hook and prove it with ``siltstone.testing.backend``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from siltstone.errors import ClosedError, SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class Handover:
    """What another process needs to open a medium under the lock of the process that has it.

    :param descriptors: open descriptors that the other process inherits, under the same numbers; one of them
        carries the lock, which so lasts until every process that can write is gone
    :param facts: whatever else the backend wants to tell itself; text, bytes, whole numbers, booleans
    """

    descriptors: tuple[int, ...]
    facts: Mapping[str, str | bytes | int | bool] = field(default_factory=dict, hash=False)


class Backend(ABC):
    """A medium that holds one volume. Offsets and lengths are bytes.

    All methods may be called from several threads at once; transfers release the interpreter lock.
    Every failure of the medium is a :class:`siltstone.errors.MediumError` with url, operation, offset and
    errno; lack of space a :class:`siltstone.errors.DiskFullError`.
    """

    #: how the target was named, for messages
    url: str
    #: True where nothing may be written; then write, flush, discard and grow raise ReadOnlyError
    read_only: bool
    #: offsets and lengths of reads and writes are multiples of this [bytes]; a power of two, at most 4096.
    #: Buffers may lie anywhere in memory: a backend that needs aligned ones copies.
    alignment: int
    #: the medium's own erase or discard unit [bytes], or 0 where it has none; a new volume rounds it up to
    #: a power of two of at least 64 KiB
    erase_block: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that can be read and written now."""

    @abstractmethod
    def lock(self) -> None:
        """Take the medium for this process: exclusively for writing, shared for reading only.

        The lock is the kernel's, held until :meth:`close` or the death of the process, never broken by age.
        Raises LockedError, naming the holder where the kernel tells.
        """

    @abstractmethod
    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes | bytearray | memoryview:
        """Return exactly `length` bytes from `offset`; the caller owns the buffer.

        With `fresh` the bytes come from the medium, past every cache, and what caches hold of the range goes unless
        it is the same, so that a later read or map cannot serve what the medium never got. Dirty pages are the
        caller's to flush before. A range beyond :attr:`size`, or a short read, is a MediumError.
        """

    @abstractmethod
    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`, not durable before the next :meth:`flush` that succeeds.

        `data` is not kept after the call returns. A write that ends short raises.
        """

    def write_each(self, pieces: Sequence[tuple[int, Buffer]]) -> dict[int, SiltstoneError]:
        """Write each (offset, data) as :meth:`write` does; the error of each that failed, by its place in `pieces`.

        One that fails does not keep the others from being written; only ClosedError is raised. A backend overrides
        this where it has a shorter way than one call for each: whoever flushes many shards waits for it.
        """
        errors: dict[int, SiltstoneError] = {}
        for place, (offset, data) in enumerate(pieces):
            try:
                self.write(offset, data)
            except ClosedError:
                raise
            except SiltstoneError as error:
                errors[place] = error.to_keep()
        return errors

    @abstractmethod
    def flush(self) -> None:
        """Return once every write that completed before this call is on stable storage. Never retried.

        Once it has failed, every later call fails too, until the medium is opened again: the system reports a
        lost write once, so a success after it would promise too much. Lack of space found here is a
        MediumError as well, since writes that had returned may be lost.
        """

    @abstractmethod
    def discard(self, offset: int, length: int) -> None:
        """Tell the medium that a range is not needed (TRIM, hole); a hint. Reads there are undefined."""

    @abstractmethod
    def grow(self, size: int) -> None:
        """Make the medium at least `size` bytes, the new space durable and preallocated, so that a later
        write and flush inside it changes no file-system metadata. Raises DiskFullError where it cannot;
        then the size is what it was."""

    def publish(self) -> None:
        """Make a newly created medium visible under its name, durably; called once it holds a valid volume.

        A backend that creates its target only here leaves nothing behind when a creation dies in the middle.
        Does nothing where the medium was there before. Raises AlreadyExistsError where somebody else has
        made the target meanwhile.
        """
        # A medium that is always there (a device) has nothing to publish.
        return

    def map(self, offset: int, length: int) -> memoryview | None:
        """Return a read-only view of a range that shows every completed write; None where there can be none.

        `offset` is a multiple of 4096. The view stays valid until it is released, also after :meth:`close`.
        Where this is None the engine keeps a copy of its journals in memory.
        """
        return None

    def hand_over(self) -> Handover | None:
        """Return what a worker process needs to open this medium too; None where only this process can.

        The backend stays open here, and keeps the descriptors. The worker gets them by inheritance and calls
        `BackendType.attach`. From here on :meth:`close` leaves the lock to those who inherited it, unless
        :meth:`reclaim` was called.
        """
        return None

    def identity(self) -> str | None:
        """Return what only this very medium is called on this machine, the same in every process; None: not known.

        A copy of a volume bears the same uuid. Where this is None, nobody reads beside a writer.
        """
        return None

    def reclaim(self) -> None:
        """Every process that got a :meth:`hand_over` is gone: closing gives up the lock again."""
        return

    @abstractmethod
    def close(self) -> None:
        """Give up the lock and every descriptor. Nothing is flushed. Closing twice is allowed.

        Calls after it raise ClosedError. A transfer under way in another thread ends undisturbed, and the
        lock and the descriptors go with it. A created medium that was not published is gone.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
