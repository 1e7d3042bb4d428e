"""A volume: a backend that bears a superblock, and the changes of that superblock, one at a time."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from siltstone.errors import (
    ClosedError,
    ConfigError,
    MediumError,
    PoisonedError,
    ReadOnlyError,
    SiltstoneError,
    StateError,
)
from siltstone.format.constants import ERASE_BLOCK_DEFAULT, ERASE_BLOCK_MIN, EXTENTS_OFFSET, JOURNAL_SIZE_MAX
from siltstone.format.superblock import (
    EMPTY,
    FREE,
    KIND_CHECKPOINT,
    SHARDS_MAX,
    Superblock,
)
from siltstone.format.superblock_slot import encode_slot
from siltstone.locks import uninterrupted
from siltstone.volume import allocator
from siltstone.volume.ports import Ports
from siltstone.volume.slots import erase_slots, read_superblock, write_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from siltstone.format.superblock import Extent, RecordedType
    from siltstone.volume.backend import Backend

    #: takes the superblock as it is, its sequence already raised, and returns it as it shall be
    Change = Callable[[Superblock], Superblock]

_log = logging.getLogger(__name__)
ERASE_BLOCK_MAX = JOURNAL_SIZE_MAX // 2
#: bytes that opening, rolling and closing a shard may add to a superblock
_SPARED_A_SHARD = 64


def check_erase_block(erase_block: int) -> int:
    """`erase_block` [bytes] if a volume can have it, else ConfigError."""
    if not ERASE_BLOCK_MIN <= erase_block <= ERASE_BLOCK_MAX or erase_block & (erase_block - 1):
        raise ConfigError(
            f"erase_block {erase_block}: must be a power of two of {ERASE_BLOCK_MIN} to {ERASE_BLOCK_MAX} bytes",
            source="erase_block",
            key="erase_block",
        )
    return erase_block


def interrupted(url: str, error: BaseException) -> SiltstoneError:
    """Why a volume is poisoned whose superblock write was interrupted."""
    return StateError(
        f"{url}: interrupted while the superblock was written ({error!r})", what=url, state="unknown"
    )


def check_process(url: str, process: int) -> None:
    """StateError in a process that was forked from `process`, which opened the volume."""
    # Asked at every write.
    if os.getpid() != process:
        raise StateError(
            f"{url}: opened by process {process}; this is {os.getpid()}, forked from it: open the store after forking",
            what=url,
            state="forked",
        )


def check_poison(url: str, cause: SiltstoneError | None) -> None:
    """PoisonedError where a write or flush failed before, for this cause."""
    if cause is not None:
        raise PoisonedError(
            f"{url}: an earlier write or flush failed ({cause}); close the store, mend the medium, and open it again",
            what=url,
            cause=str(cause),
        )


class Volume:
    """A locked backend and its superblock.

    :param backend: open and locked; the volume closes it
    :param superblock: what its slots hold
    :param slot: which slot holds it

    Threads may share it. `publish` is durable when it returns. After a superblock write or a flush that failed
    the volume is poisoned: no superblock is written and nothing is made durable any more.
    """

    def __init__(self, backend: Backend, superblock: Superblock, slot: int, ports: Ports) -> None:
        self.backend = backend
        self.superblock = superblock
        self.ports = ports
        self._slot = slot
        self._lock = threading.RLock()
        self._flush_lock = threading.Lock()
        self._cause: SiltstoneError | None = None
        #: flushes of the medium that failed: each may have lost what any thread had written before
        self.flushes_failed = 0
        self._closed = False
        self._process = os.getpid()

    # ---- making and opening

    @classmethod
    def create(
        cls,
        backend: Backend,
        *,
        shards: int,
        erase_block: int = ERASE_BLOCK_DEFAULT,
        entry_types: Mapping[int, RecordedType] | None = None,
        ports: Ports | None = None,
    ) -> Volume:
        """Write a new, empty volume over whatever the locked backend holds, durably.

        The caller has made sure that nothing there is needed. A power cut in it leaves no volume, or the new one.
        """
        ports = ports or Ports()
        if not 1 <= shards <= SHARDS_MAX:
            raise ConfigError(f"shards {shards}: must be 1 to {SHARDS_MAX}", source="shards", key="shards")
        check_erase_block(max(erase_block, backend.erase_block))
        superblock = Superblock(
            uuid=ports.random_bytes(16),
            erase_block=max(erase_block, backend.erase_block),
            created=int(ports.wall_time()),
            shards=shards,
            sequence=1,
            entry_types=dict(entry_types or {}),
        )
        if backend.size < EXTENTS_OFFSET:
            backend.grow(EXTENTS_OFFSET)
        erase_slots(backend)
        return cls(backend, superblock, write_slots(backend, encode_slot(superblock), 1), ports)

    @classmethod
    def open(cls, backend: Backend, *, ports: Ports | None = None) -> Volume:
        """Read the superblock of a locked backend, past every cache, behind a barrier; writes nothing."""
        if not backend.read_only:
            # What a dead process left in the caches must not vanish after it was read.
            backend.flush()
        slot, number = read_superblock(backend)
        if backend.size < allocator.end_of_extents(slot.superblock):
            raise MediumError(
                f"{backend.url}: {backend.size} bytes, but its extents reach to"
                f" {allocator.end_of_extents(slot.superblock)}: cut short",
                url=backend.url,
                operation="open",
                offset=backend.size,
            )
        return cls(backend, slot.superblock, number, ports or Ports())

    # ---- the superblock

    def publish(self, change: Change, *, optional: bool = False) -> Superblock:
        """Apply `change` and write the result, durably; the superblock as it is then.

        Raises what `change` raises, with nothing written; DiskFullError where the medium cannot grow to hold
        the extents, or the superblock to name them; PoisonedError after a write that failed. With `optional`
        it also leaves the room that opening, closing and rolling need in a superblock.
        """
        with self._lock:
            self._check_writable()
            # A slot that was found damaged gets whole again with the first write: both are always written.
            fresh = change(replace(self.superblock, sequence=self.superblock.sequence + 1))
            data = encode_slot(fresh, spared=_SPARED_A_SHARD * fresh.shards if optional else 0)
            needed = allocator.end_of_extents(fresh)
            if needed > self.backend.size:
                self.backend.grow(needed)
            before = self.superblock
            # Cut off by an interrupt nobody would know what the medium has.
            uninterrupted(partial(self._write, fresh, data))
            self._discard_freed(before, fresh)
            return fresh

    def _write(self, fresh: Superblock, data: bytes) -> None:
        try:
            with self._flush_lock:
                self._slot = write_slots(self.backend, data, self._slot)
            self.superblock = fresh
        except BaseException as error:
            # Whatever it was: the medium may have it, and no sequence may ever be written twice.
            self._cause = (
                error.to_keep() if isinstance(error, SiltstoneError) else interrupted(self.backend.url, error)
            )
            raise

    def _discard_freed(self, before: Superblock, after: Superblock) -> None:
        """TRIM what this superblock write freed; only now does nothing rely on it."""
        kept = {extent.id for extent in after.extents if extent.state != FREE}
        for extent in before.extents:
            if extent.state != FREE and extent.id not in kept:
                try:
                    self.backend.discard(extent.offset, extent.length)
                except SiltstoneError:
                    _log.debug("a discard failed; it is only a hint", exc_info=True)

    def begin_epoch(self, shards: Collection[int] | None = None) -> Superblock:
        """Open for writing: raise the epoch, clear `clean`, give each empty journal a new life; durable.

        :param shards: those that are opened; None: all
        """

        def change(superblock: Superblock) -> Superblock:
            superblock = replace(superblock, epoch=superblock.epoch + 1, clean=False)
            fresh = [
                replace(extent, generation=superblock.sequence)
                for extent in superblock.extents
                if extent.state == EMPTY and (shards is None or extent.shard in shards)
            ]
            superblock = superblock.with_extents(*fresh)
            for extent in fresh:
                # A checkpoint that was never finished is of no use to anybody.
                if extent.kind == KIND_CHECKPOINT:
                    superblock = allocator.give(superblock, extent.id)
            return superblock

        return self.publish(change)

    def extent(self, number: int) -> Extent:
        """The extent with this id, as it is now."""
        return self.superblock.extent(number)

    # ---- the medium

    def flush(self, *, shared: bool = False) -> None:
        """Return once all that was written before this call is durable.

        One at a time: the kernel tells a failure to one caller only, so no flush may overlap another. One that
        fails may have lost any journal's writes, so it poisons the volume; with `shared` it does not, since
        the caller then tells every journal that had something to lose.
        """
        self.check_process()
        with self._flush_lock:
            check_poison(self.backend.url, self._cause)
            try:
                self.backend.flush()
            except SiltstoneError as error:
                self.flushes_failed += 1
                if not shared:
                    self._cause = error.to_keep()
                raise

    @property
    def poisoned(self) -> SiltstoneError | None:
        """Why nothing is made durable any more, or None."""
        return self._cause

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that opened the volume: it must leave the volume alone."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """StateError in a process that was forked from the one that opened the volume."""
        check_process(self.backend.url, self._process)

    def _check_writable(self) -> None:
        self.check_process()
        if self._closed:
            raise ClosedError(f"{self.backend.url}: closed", what=self.backend.url)
        if self.backend.read_only:
            raise ReadOnlyError(f"{self.backend.url}: open for reading only", reason="opened read-only")
        check_poison(self.backend.url, self._cause)

    def close(self) -> None:
        """Give up the backend and its lock; closing twice is allowed."""
        with self._lock:
            self._closed = True
            self.backend.close()
