"""Backend ``file``: a volume in a regular file, its space allocated and written beforehand."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from siltstone.errors import (
    AlreadyExistsError,
    DiskFullError,
    MediumError,
    NotFoundError,
    RefusedDeviceError,
)
from siltstone.plugin import BackendOptions, BackendType, hookimpl
from siltstone.volume.descriptors import above_standard
from siltstone_plugins import _statx
from siltstone_plugins._creation import Creation
from siltstone_plugins._failures import check_range, failed, in_use, not_opened, refuse_writing
from siltstone_plugins._holders import lock_holder
from siltstone_plugins._mounts import local_lock
from siltstone_plugins._options import check_names, choice
from siltstone_plugins._posix import FLAGS, DescriptorBackend, reopened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siltstone.volume.backend import Handover

SCHEME: Final = "file"
OPTIONS: Final = {
    "discard": '"keep" (default): space that is given up stays allocated; "punch": it goes back to the disk',
}
#: what `discard` may be; the first is the default
DISCARDS: Final = ("keep", "punch")
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISBLK, "a block device (write block:PATH)"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)
_ZEROS: Final = bytes(1 << 20)
_SIZE_MAX: Final = (1 << 63) - 1
_PUNCH_HOLE_KEEP_SIZE: Final = 0x02 | 0x01

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class FileBackend(DescriptorBackend):
    """A regular file. See :func:`open_file`."""

    def __init__(
        self, url: str, path: str, descriptor: int, options: BackendOptions, creation: Creation | None
    ) -> None:
        super().__init__(url, path, descriptor, read_only=options.read_only, alignment=1, direct=False)
        self._creation = creation
        self._punches = choice(SCHEME, options.extra, "discard", DISCARDS) == "punch"
        self._force = options.force
        self._growing = threading.Lock()
        status = os.fstat(descriptor)
        self._size = status.st_size
        # Some file systems count no links at all: there a count of 0 says nothing.
        self._counts_links = status.st_nlink > 0

    def lock(self) -> None:
        """Take a flock on the file, and make sure that its name still means this file."""
        if self._inherited is not None:
            return
        with self._descriptors:
            kind = fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX
            try:
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = lock_holder(self._path, os.fstat(self._descriptor))
                raise in_use(self.url, holder) from error
            except OSError as error:
                raise failed(self.url, "lock", 0, 0, error) from error
            self._check_name()
            self._check_lock_reach()
            # Whoever held the lock until now may have made it longer.
            self._size = os.fstat(self._descriptor).st_size

    def _size_now(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _check_name(self) -> None:
        """Raise unless the path names the file that is locked: else another process locks another file."""
        if self._creation is not None:
            return
        mine = os.fstat(self._descriptor)
        with contextlib.suppress(OSError):
            theirs = Path(self._path).stat()
            if (theirs.st_dev, theirs.st_ino) == (mine.st_dev, mine.st_ino):
                return
        raise MediumError(
            f"{self.url} was deleted or replaced while it was being opened; open it again",
            url=self.url,
            operation="lock",
            offset=0,
            length=0,
            errno=errno.ESTALE,
        )

    def _check_lock_reach(self) -> None:
        if self.read_only or "local_lock" in self._force:
            return
        where = local_lock(os.fstat(self._descriptor).st_dev)
        if where is not None:
            raise RefusedDeviceError(
                f"{self.url} is on {where}: a lock there does not keep out other machines; "
                f'name "local_lock" in force if no other machine opens it',
                url=self.url,
                reason="local_lock",
            )

    def _check_medium(self, operation: str, offset: int, length: int) -> None:
        expected = self._size  # before the kernel is asked: another thread may grow the file meanwhile
        if operation == "write":
            links, size = 1, _statx.size(self._descriptor)
        else:
            links, size = _statx.links_and_size(self._descriptor)
        what = None
        if size < expected:
            what = f"it has been cut from {expected} to {size} bytes"
        elif links == 0 and self._counts_links and self._creation is None:
            what = "it has been deleted, so nothing in it can be found again"
        if what is not None:
            raise MediumError(
                f"{self.url}: {operation} refused: {what}",
                url=self.url,
                operation=operation,
                offset=offset,
                length=length,
                errno=errno.ESTALE,
            )

    def grow(self, size: int) -> None:
        """Allocate the new part, write zeros over it, flush it; or cut the file back to what it was."""
        with self._descriptors, self._growing:
            if self.read_only:
                raise refuse_writing(self.url, "grow")
            old = self._size
            if size <= old:
                return
            if size > _SIZE_MAX:
                raise DiskFullError(f"{self.url}: no file has {size} bytes", url=self.url, needed=size - old)
            try:
                self._extend(old, size)
            except BaseException as error:
                self._give_back(old)
                if isinstance(error, OSError):
                    raise failed(self.url, "grow", old, size - old, error) from error
                raise
            self._size = size

    def _extend(self, old: int, size: int) -> None:
        # Allocating until nothing is left would fail as well, but fill the disk for everybody meanwhile.
        disk = os.fstatvfs(self._descriptor)
        if disk.f_blocks and size - old > disk.f_bfree * disk.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Zeros besides would spare the flush behind the first write to each block a change of the file system's
        # tables; but they are as many bytes again, for which every flush meanwhile has to wait.
        try:
            os.posix_fallocate(self._descriptor, old, size - old)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                raise
            at = old
            while at < size:
                at += os.pwrite(self._descriptor, memoryview(_ZEROS)[: size - at], at)
        self._sync(os.fsync, "grow")

    def _give_back(self, size: int) -> None:
        # Left behind, the new part is only space that nobody uses: the error to report is the first one.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, size)

    def discard(self, offset: int, length: int) -> None:
        """Do nothing, or with the option ``discard = "punch"`` make a hole."""
        with self._descriptors:
            if self.read_only:
                raise refuse_writing(self.url, "discard")
            check_range(self.url, "discard", offset, length, self._reach(offset + length), self.alignment)
            # A hole undoes what `grow` is for: the next write there would have to allocate, and the disk might be full
            # by then. So it is only done for those who ask for it.
            if not self._punches or length == 0:
                return
            if _libc.fallocate(self._descriptor, _PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
                code = ctypes.get_errno()
                if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise failed(self.url, "discard", offset, length, OSError(code, os.strerror(code)))

    def publish(self) -> None:
        """Give a new file its name; see :class:`siltstone_plugins._creation.Creation`."""
        with self._descriptors, self._growing:
            creation, self._creation = self._creation, None
            if creation is not None:
                creation.publish()
                self._counts_links = os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """Give up the descriptors, and with them the lock and a file that got no name."""
        super().close()
        creation, self._creation = self._creation, None
        if creation is not None:
            creation.abandon()


def open_file(rest: str, options: BackendOptions) -> FileBackend:
    """Open the regular file at path `rest`, which may be a symlink to one.

    With `create`, a file that is absent is made without a name; :meth:`FileBackend.publish` gives it one.
    Raises NotFoundError, AlreadyExistsError, RefusedDeviceError for what is no regular file, ReadOnlyError on
    a read-only file system.
    """
    check_names(SCHEME, options, OPTIONS)
    choice(SCHEME, options.extra, "discard", DISCARDS)
    if not rest:
        raise NotFoundError("file: a path is needed, there is none", url=rest)
    try:
        path = os.path.realpath(rest)
        descriptor = _open_existing(rest, path, options)
    except FileNotFoundError as error:
        if options.read_only or not options.create:
            raise not_opened(rest, error) from error
    except (OSError, ValueError) as error:
        raise not_opened(rest, error) from error
    else:
        return FileBackend(rest, path, descriptor, options, None)
    creation = Creation(rest, path)
    return FileBackend(rest, path, creation.descriptor, options, creation)


def attach_file(rest: str, options: BackendOptions, handover: Handover) -> FileBackend:
    """Open the file that another process has locked and handed over, to write under its lock."""
    try:
        descriptor = reopened(handover, 0)
    except OSError as error:
        raise not_opened(rest, error) from error
    backend = FileBackend(rest, str(handover.facts["path"]), descriptor, options, None)
    backend.inherit(handover.descriptors[0])
    return backend


def _open_existing(rest: str, path: str, options: BackendOptions) -> int:
    status = Path(path).stat()
    _check_regular(rest, status.st_mode)
    if options.create and options.exclusive:
        raise AlreadyExistsError(f"{rest} exists already; it was not touched", url=rest)
    # Not to wait for the other end where a FIFO has taken the file's place since.
    flags = (os.O_RDONLY if options.read_only else os.O_RDWR) | os.O_NONBLOCK | FLAGS
    descriptor = above_standard(os.open(path, flags))
    try:
        _check_regular(rest, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(rest: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a special file")
    message = f"{rest} is {kind}, not a regular file; it was not touched"
    raise RefusedDeviceError(message, url=rest, reason="kind")


def claims(path: str) -> bool:
    """Say yes to what is absent or a regular file; also to what cannot be asked: opening it says why."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return True


@hookimpl
def siltstone_backends() -> Iterable[BackendType]:
    """Yield the backend ``file``, which takes what no other backend claims."""
    yield BackendType(
        scheme=SCHEME, open=open_file, claims=claims, priority=-100, options=OPTIONS, attach=attach_file
    )
