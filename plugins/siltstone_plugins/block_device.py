"""Backend ``block``: a volume on a raw block device."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from siltstone.errors import (
    DiskFullError,
    MediumError,
    NotFoundError,
    RefusedDeviceError,
    SiltstoneError,
)
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.plugin import BackendOptions, BackendType, hookimpl
from siltstone.volume.descriptors import above_standard
from siltstone_plugins import _sysfs
from siltstone_plugins._device_checks import check_content, check_use, explain_busy
from siltstone_plugins._failures import NO_SPACE, check_range, failed, in_use, not_opened, refuse_writing
from siltstone_plugins._holders import device_holder, lock_holder
from siltstone_plugins._options import check_names, choice, flag
from siltstone_plugins._posix import FLAGS, DescriptorBackend, reopened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from siltstone.volume.backend import Handover
    from siltstone_plugins._holders import Holder

SCHEME: Final = "block"
OPTIONS: Final = {
    "direct": "true (default): transfers go past the page cache (O_DIRECT); false: through it",
    "discard": '"trim" (default): the device is told of space that is given up; "keep": it is not',
}
#: what `discard` may be; the first is the default
DISCARDS: Final = ("trim", "keep")
#: how long a lock is tried for [s]: udev locks a device for moments, and so do readers that are opening it
LOCK_PATIENCE_S: Final = 0.5
_LOCK_PAUSE_S: Final = 0.01


class BlockDeviceBackend(DescriptorBackend):
    """A raw device. See :func:`open_device`."""

    def __init__(self, url: str, path: str, descriptor: int, options: BackendOptions) -> None:
        direct = flag(SCHEME, options.extra, "direct", True)
        super().__init__(url, path, descriptor, read_only=options.read_only, alignment=1, direct=direct)
        try:
            geometry = _sysfs.geometry(descriptor)
            self._check_geometry(geometry)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise failed(url, "open", 0, 0, error) from error
            raise
        self.alignment = geometry.logical_sector
        self.erase_block = geometry.discard_granularity
        self._geometry = geometry
        self._size = geometry.size
        self._discards = choice(SCHEME, options.extra, "discard", DISCARDS) == "trim" and self.erase_block > 0

    def _check_geometry(self, geometry: _sysfs.Geometry) -> None:
        why, sector = None, geometry.logical_sector
        if geometry.size == 0:
            why, reason = "it has no medium, or no bytes", "empty"
        elif sector > CLUSTER_SIZE or sector & (sector - 1):
            why, reason = f"its sectors have {sector} bytes, which do not fit {CLUSTER_SIZE}", "sector_size"
        elif geometry.read_only and not self.read_only:
            why, reason = "the device is read-only", "read_only"
        if why is not None:
            raise RefusedDeviceError(f"{self.url} refused: {why}", url=self.url, reason=reason)

    def lock(self) -> None:
        """Take a flock. A writer has had O_EXCL since it was opened; a reader makes sure that nobody has."""
        if self._inherited is not None:
            return
        with self._descriptors:
            deadline = time.monotonic() + LOCK_PATIENCE_S
            while (held := self._try_lock()) is not None:
                if time.monotonic() > deadline:
                    raise in_use(self.url, held())
                time.sleep(_LOCK_PAUSE_S)

    def _try_lock(self) -> Callable[[], Holder] | None:
        """Return None once the lock is taken, else what finds out who holds it."""
        try:
            fcntl.flock(
                self._descriptor, (fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB
            )
        except BlockingIOError:
            return lambda: lock_holder(self._path, os.fstat(self._descriptor))
        except OSError as error:
            raise failed(self.url, "lock", 0, 0, error) from error
        if self.read_only:
            # A flock binds those who use the same device node; O_EXCL binds all. A reader does not keep it,
            # so that there may be several.
            try:
                os.close(os.open(self._path, os.O_RDONLY | os.O_EXCL | FLAGS))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise failed(self.url, "lock", 0, 0, error) from error
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                rdev = os.fstat(self._descriptor).st_rdev
                return lambda: device_holder(rdev, but=self._descriptor)
        return None

    def _write_failed(self, offset: int, length: int, error: OSError, done: int) -> SiltstoneError:
        # A device says "no space" both when it is thin and full and when it has become shorter.
        if error.errno in NO_SPACE:
            with contextlib.suppress(OSError):
                now = _sysfs.size(self._descriptor)
                if now < self._size:
                    return MediumError(
                        f"{self.url}: write of {length} bytes at offset {offset} failed after {done} bytes: "
                        f"the device has shrunk from {self._size} to {now} bytes",
                        url=self.url,
                        operation="write",
                        offset=offset,
                        length=length,
                        errno=error.errno,
                    )
        return super()._write_failed(offset, length, error, done)

    def grow(self, size: int) -> None:
        """Do nothing up to the size of the device; a device does not grow."""
        with self._descriptors:
            if self.read_only:
                raise refuse_writing(self.url, "grow")
            if size > self._size:
                message = f"{self.url} has {self._size} bytes, {size} are needed"
                raise DiskFullError(message, url=self.url, needed=size - self._size)

    def discard(self, offset: int, length: int) -> None:
        """Send a TRIM for the whole discard units in the range, unless the device takes none."""
        with self._descriptors:
            if self.read_only:
                raise refuse_writing(self.url, "discard")
            check_range(self.url, "discard", offset, length, self._size, self.alignment)
            unit, shift = self._geometry.discard_granularity, self._geometry.discard_offset
            if not self._discards:
                return
            start = -(-(offset - shift) // unit) * unit + shift
            end = (offset + length - shift) // unit * unit + shift
            if end <= start:
                return
            try:
                _sysfs.discard(self._descriptor, start, end - start)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
                    raise failed(self.url, "discard", offset, length, error) from error
                self._discards = False


def open_device(rest: str, options: BackendOptions) -> BlockDeviceBackend:
    """Open the block device at path `rest`; a writer has it to itself from then on.

    For writing, it must be ours or empty: see docs/backends.md for what is refused, and how to override it.
    Raises NotFoundError, RefusedDeviceError, LockedError; AlreadyExistsError where `create` and `exclusive`
    are set and it holds a volume. Nothing is written.
    """
    check_names(SCHEME, options, OPTIONS)
    direct = flag(SCHEME, options.extra, "direct", True)
    choice(SCHEME, options.extra, "discard", DISCARDS)
    path = os.path.realpath(rest) if rest and "\0" not in rest else ""
    if not path:
        raise NotFoundError(f"block: {rest!r} is no path", url=rest)
    try:
        status = Path(path).stat()
    except OSError as error:
        raise not_opened(rest, error) from error
    if not stat.S_ISBLK(status.st_mode):
        raise RefusedDeviceError(f"{rest} is no block device; it was not touched", url=rest, reason="kind")
    descriptor = _open_exclusively(rest, path, status.st_rdev, options, os.O_DIRECT if direct else 0)
    backend = BlockDeviceBackend(rest, path, descriptor, options)
    try:
        if os.fstat(descriptor).st_rdev != status.st_rdev:
            raise MediumError(
                f"{rest} was replaced while it was being opened; open it again",
                url=rest,
                operation="open",
                offset=0,
                length=0,
                errno=errno.ESTALE,
            )
        if not options.read_only:
            check_content(backend, path, options)
    except BaseException:
        backend.close()
        raise
    return backend


def attach_device(rest: str, options: BackendOptions, handover: Handover) -> BlockDeviceBackend:
    """Open the device that another process has to itself and handed over, to write under its claim."""
    direct = flag(SCHEME, options.extra, "direct", True)
    try:
        # Without O_EXCL: the claim is that of the descriptor that was handed over.
        descriptor = reopened(handover, os.O_DIRECT if direct else 0)
    except OSError as error:
        raise not_opened(rest, error) from error
    backend = BlockDeviceBackend(rest, str(handover.facts["path"]), descriptor, options)
    backend.inherit(handover.descriptors[0])
    return backend


def _open_exclusively(url: str, path: str, rdev: int, options: BackendOptions, flags: int) -> int:
    if options.read_only:
        try:
            return above_standard(os.open(path, os.O_RDONLY | FLAGS | flags))
        except OSError as error:
            raise not_opened(url, error) from error
    check_use(url, _sysfs.Device(rdev), options.force)
    try:
        return above_standard(os.open(path, os.O_RDWR | os.O_EXCL | FLAGS | flags))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise explain_busy(url, _sysfs.Device(rdev)) from error
        raise not_opened(url, error) from error


def claims(path: str) -> bool:
    """Say whether `path` leads to a block device."""
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


@hookimpl
def siltstone_backends() -> Iterable[BackendType]:
    """Yield the backend ``block``, which takes the paths of block devices."""
    yield BackendType(scheme=SCHEME, open=open_device, claims=claims, options=OPTIONS, attach=attach_device)
