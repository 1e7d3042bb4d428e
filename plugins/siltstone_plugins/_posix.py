"""What a file and a block device have in common: transfers through a descriptor, and their failures."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from typing import TYPE_CHECKING, Final

from siltstone.errors import MediumError, SiltstoneError
from siltstone.format.constants import SECTOR_SIZE
from siltstone.volume.backend import Backend, Handover
from siltstone.volume.descriptors import above_standard
from siltstone.volume.mapping import Mapping
from siltstone.volume.writing import write_pieces
from siltstone_plugins._buffers import BOUNCE_SIZE, BouncePool, aligned, flat, is_aligned
from siltstone_plugins._descriptors import Descriptors
from siltstone_plugins._failures import check_range, ended_short, failed, refuse_writing
from siltstone_plugins._page_cache import drop, is_cached, page_range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer


#: what os.open gets everywhere: no child that runs another program inherits a descriptor
FLAGS: Final = os.O_CLOEXEC | os.O_NOCTTY


class DescriptorBackend(Backend):
    """A backend over one descriptor.

    :param path: absolute path behind the descriptor
    :param descriptor: owned from now on; its open file description carries the lock
    :param direct: the descriptor was opened with O_DIRECT
    """

    def __init__(
        self, url: str, path: str, descriptor: int, *, read_only: bool, alignment: int, direct: bool
    ) -> None:
        self.url = url
        self.read_only = read_only
        self.alignment = alignment
        self.erase_block = 0
        self._path = path
        self._descriptor = descriptor
        self._descriptors = Descriptors(url, descriptor)
        self._direct = direct
        self._size = 0
        self._bounce = BouncePool()
        self._opening = threading.Lock()
        self._direct_reader: int | None = descriptor if direct else None
        self._direct_refused = False
        self._cached_reader: int | None = None
        self._syncing = threading.Lock()
        self._sync_failure: SiltstoneError | None = None
        #: the descriptor that carries a lock of another process, where this backend writes under it
        self._inherited: int | None = None
        #: another process may make the medium longer
        self._grows_elsewhere = read_only

    @property
    def size(self) -> int:
        if self._grows_elsewhere:
            self._size = max(self._size, self._size_now())
        return self._size

    def _reach(self, end: int) -> int:
        """The size; asked anew where an access ends behind what is known and the medium may have grown since."""
        if end > self._size and self._grows_elsewhere:
            self._size = max(self._size, self._size_now())
        return self._size

    def _size_now(self) -> int:
        return self._size

    # ---- other processes

    def hand_over(self) -> Handover | None:
        """The locked descriptor: its open file description carries the lock, in every process that has it."""
        with self._descriptors:
            self._descriptors.keep_lock = True
            return Handover((self._descriptor,), {"path": self._path})

    def identity(self) -> str | None:
        with self._descriptors:
            status = os.fstat(self._descriptor)
            return f"{status.st_dev}:{status.st_ino}:{status.st_rdev}"

    def reclaim(self) -> None:
        self._descriptors.keep_lock = False

    def inherit(self, descriptor: int) -> None:
        """Write under the lock that `descriptor`, owned from now on, carries for every process that has it."""
        self._inherited = descriptor
        self._grows_elsewhere = True

    # ---- reading

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes | bytearray | memoryview:
        """Read through the cache, or with `fresh` through O_DIRECT where the file system has it."""
        with self._descriptors:
            check_range(self.url, "read", offset, length, self._reach(offset + length), self.alignment)
            try:
                if fresh:
                    return self._read_fresh(offset, length)
                if self._direct:
                    return self._read_direct(self._descriptor, offset, length)
                return self._read_cached(self._descriptor, offset, length)
            except OSError as error:
                raise failed(self.url, "read", offset, length, error) from error

    def _read_cached(self, descriptor: int, offset: int, length: int) -> bytes | memoryview:
        data = os.pread(descriptor, length, offset)
        if len(data) == length:
            return data
        view = memoryview(bytearray(length))
        view[: len(data)] = data
        self._fill(descriptor, view, offset, length, done=len(data))
        return view

    def _read_direct(self, descriptor: int, offset: int, length: int) -> memoryview:
        # O_DIRECT takes whole sectors only; whole pages are that on every medium here.
        start, end = page_range(offset, length)
        if self._direct:
            start, end = offset, offset + length
        view = aligned(end - start)
        self._fill(descriptor, view, start, offset + length - start)
        return view[offset - start : offset - start + length]

    def _fill(self, descriptor: int, view: memoryview, offset: int, needed: int, done: int = 0) -> None:
        """Read into `view` until at least `needed` bytes of it hold what lies at `offset`."""
        while done < needed:
            count = os.preadv(descriptor, [view[done:]], offset + done)
            # O_DIRECT cannot go on in the middle of a sector; only the end of the medium stops it there.
            torn = descriptor == self._direct_reader and done + count < needed and count % SECTOR_SIZE
            if count == 0 or torn:
                raise ended_short(self.url, "read", offset, needed, done, "the medium has become shorter")
            done += count

    def _read_fresh(self, offset: int, length: int) -> bytes | memoryview:
        direct = self._open_direct_reader()
        if direct is not None:
            try:
                data = self._read_direct(direct, offset, length)
            except OSError as error:
                # Some file systems take the flag and refuse the transfer.
                if error.errno != errno.EINVAL or self._direct:
                    raise
                self._direct_refused = True
            else:
                self._forget_cached(offset, length, data)
                return data
        drop(self._descriptor, offset, length)
        return self._read_cached(self._descriptor, offset, length)

    def _forget_cached(self, offset: int, length: int, data: memoryview) -> None:
        """See that the cache holds the medium's `data` over a range or nothing; raise where it keeps other bytes."""
        reader = self._open_cached_reader()
        start, end = page_range(offset, length)
        end = min(end, self._size)

        # What is dropped takes its surroundings along, which others may soon ask for: so not where the cache is right.
        # Where it seems to hold nothing it is dropped all the same: it counts whole pages, and serves parts of pages.
        if is_cached(reader, start, end - start) and self._read_cached(reader, offset, length) == data:
            return
        drop(reader, start, end - start)
        # A page that somebody has mapped cannot be dropped. It may hold what a failed flush left behind, and
        # every later read and map in this system would serve it.
        if is_cached(reader, start, end - start) and self._read_cached(reader, offset, length) != data:
            raise MediumError(
                f"{self.url}: the page cache holds other bytes than the medium in {length} bytes at offset "
                f"{offset}, and keeps them because a process has them mapped; end what maps it",
                url=self.url,
                operation="read",
                offset=offset,
                length=length,
                errno=errno.EIO,
            )

    # ---- writing

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data`, going on where the system took a part of it, until it says why it does not."""
        view = flat(data)
        with self._descriptors:
            if self.read_only:
                raise refuse_writing(self.url, "write")
            reach = self._reach(offset + len(view))
            check_range(self.url, "write", offset, len(view), reach, self.alignment)
            self._check_medium("write", offset, len(view))
            if self._direct and not is_aligned(view, mmap.PAGESIZE):
                self._write_copied(offset, view)
            else:
                self._put(offset, view, offset, len(view))

    def write_each(self, pieces: Sequence[tuple[int, Buffer]]) -> dict[int, SiltstoneError]:
        """As :meth:`write` for each; what the system takes without ado goes to it in one call."""
        errors: dict[int, SiltstoneError] = {}
        views = [(offset, flat(data)) for offset, data in pieces]
        place = 0
        with self._descriptors:
            if not self._can_write(views):
                # Said of each that it is true of.
                return super().write_each(views)
            alignment = mmap.PAGESIZE if self._direct else 1
            while True:
                place, done, code = write_pieces(self._descriptor, views, place, alignment)
                if place == len(views):
                    return errors
                offset, view = views[place]
                if code:
                    cause = OSError(code, os.strerror(code))
                    errors[place] = self._write_failed(offset, len(view), cause, done)
                elif refused := super().write_each(views[place : place + 1]):
                    # From where it lies it cannot go, or the system took no more and did not say why: asked here.
                    errors[place] = refused[0]
                place += 1

    def _can_write(self, views: Sequence[tuple[int, memoryview]]) -> bool:
        """Whether nothing is amiss with any of them before it is tried."""
        if self.read_only or not views:
            return False
        try:
            for offset, view in views:
                reach = self._reach(offset + len(view))
                check_range(self.url, "write", offset, len(view), reach, self.alignment)
            self._check_medium("write", views[0][0], len(views[0][1]))
        except SiltstoneError:
            return False
        return True

    def _write_copied(self, offset: int, view: memoryview) -> None:
        buffer = self._bounce.take()
        try:
            for start in range(0, len(view), BOUNCE_SIZE):
                part = view[start : start + BOUNCE_SIZE]
                buffer[: len(part)] = part
                self._put(offset + start, buffer[: len(part)], offset, len(view))
        finally:
            self._bounce.give(buffer)

    def _put(self, at: int, view: memoryview, offset: int, length: int) -> None:
        """Write `view` at `at`; `offset` and `length` are those of the whole write, for the error."""
        before, done = at - offset, 0
        while done < len(view):
            try:
                count = os.pwrite(self._descriptor, view[done:], at + done)
            except OSError as error:
                raise self._write_failed(offset, length, error, before + done) from error
            if count == 0:
                raise ended_short(self.url, "write", offset, length, before + done, "the system took no more")
            done += count

    def _write_failed(self, offset: int, length: int, error: OSError, done: int) -> SiltstoneError:
        return failed(self.url, "write", offset, length, error, done)

    def flush(self) -> None:
        """Call fdatasync, or raise what an earlier one raised."""
        with self._descriptors:
            if self.read_only:
                raise refuse_writing(self.url, "flush")
            self._sync(os.fdatasync, "flush")

    def _sync(self, call: Callable[[int], None], operation: str) -> None:
        # One at a time, and the failure is kept: Linux reports a lost write once per open file description.
        # A second flush, side by side or later, would return success for writes that the first one lost.
        with self._syncing:
            if self._sync_failure is not None:
                raise MediumError(
                    f"{self.url}: a flush failed before and is not tried again: {self._sync_failure.message}",
                    **{**self._sync_failure.fields, "operation": operation},
                )
            self._check_medium(operation, 0, self._size)
            try:
                call(self._descriptor)
            except OSError as error:
                failure = failed(self.url, "flush", 0, self._size, error)
                self._sync_failure = failure.to_keep()
                raise failure from error

    def _check_medium(self, operation: str, offset: int, length: int) -> None:
        """Raise MediumError where the medium is not any more what was opened."""

    # ---- mapping

    def map(self, offset: int, length: int) -> memoryview | None:
        """Map a range of the page cache; the view keeps no descriptor."""
        with self._descriptors:
            check_range(self.url, "map", offset, length, self._reach(offset + length), 1)
            check_range(self.url, "map", offset, 0, self._size, mmap.ALLOCATIONGRANULARITY)
            if length == 0:
                return memoryview(b"")
            try:
                return memoryview(Mapping(self._open_cached_reader(), offset, length))
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
                    return None
                raise failed(self.url, "map", offset, length, error) from error

    # ---- descriptors

    def _reopen(self, flags: int) -> int:
        """Return another open file description of the same medium, read-only and not locked."""
        mine = os.fstat(self._descriptor)
        for path in (f"/proc/self/fd/{self._descriptor}", self._path):
            try:
                descriptor = above_standard(os.open(path, os.O_RDONLY | FLAGS | flags))
            except FileNotFoundError:
                continue
            theirs = os.fstat(descriptor)
            if (theirs.st_dev, theirs.st_ino, theirs.st_rdev) == (mine.st_dev, mine.st_ino, mine.st_rdev):
                self._descriptors.add(descriptor)
                return descriptor
            os.close(descriptor)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _open_direct_reader(self) -> int | None:
        with self._opening:
            if self._direct_reader is None and not self._direct_refused:
                try:
                    self._direct_reader = self._reopen(os.O_DIRECT)
                except OSError as error:
                    if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                        raise
                    self._direct_refused = True
            return None if self._direct_refused else self._direct_reader

    def _open_cached_reader(self) -> int:
        # A description of its own: a mapping keeps a duplicate of its descriptor until the view is released,
        # and a duplicate of the locked one would keep the lock after close.
        with self._opening:
            if self._cached_reader is None:
                self._cached_reader = self._reopen(0)
            return self._cached_reader

    def close(self) -> None:
        self._descriptors.close()
        inherited, self._inherited = self._inherited, None
        if inherited is not None:
            # Only closed: the lock is everybody's who has this description.
            os.close(inherited)


def reopened(handover: Handover, flags: int) -> int:
    """An open file description of one's own for the medium that was handed over, for reading and writing.

    OSError where it is another medium by now.
    """
    (locked,) = handover.descriptors
    descriptor = above_standard(os.open(f"/proc/self/fd/{locked}", os.O_RDWR | FLAGS | flags))
    mine, theirs = os.fstat(descriptor), os.fstat(locked)
    if (mine.st_dev, mine.st_ino, mine.st_rdev) != (theirs.st_dev, theirs.st_ino, theirs.st_rdev):
        os.close(descriptor)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    return descriptor
