"""The directory under a volume of segments: its files, its lock, and how it comes into being."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from siltstone.errors import AlreadyExistsError, ForeignVolumeError, LockedError, MediumError, NotFoundError

if TYPE_CHECKING:
    from siltstone.plugin import BackendOptions

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_COUNT_MAX: Final = 10**8
_ZEROS: Final = bytes(1 << 20)
#: of a segment that is being made; left over where its maker died
_UNFINISHED: Final = ".unfinished"


def _name(index: int) -> str:
    return f"segment-{index:08}"


class SegmentDirectory:
    """An open directory, and its segment files open in order. Not safe to extend from two threads at once."""

    def __init__(
        self, path: Path, descriptor: int, segment_size: int, *, read_only: bool, new_path: Path | None = None
    ) -> None:
        """Take over the descriptor of the directory.

        :param path: where the directory is
        :param segment_size: of each file [bytes], for a directory that has none yet
        :param new_path: where it is to be once it is published; None for one that was there before
        """
        self.path = path
        self.segment_size = segment_size
        self.segments: list[int] = []
        self._new_path = new_path
        self._descriptor = descriptor
        self._read_only = read_only

    @classmethod
    def open(cls, url: str, path: str, segment_size: int, options: BackendOptions) -> Self:
        """Open the directory at `path`, or make one, as `options` say."""
        where = Path.cwd() / path
        try:
            descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if options.read_only or not options.create:
                raise NotFoundError(f"{url} does not exist", url=url) from error
            return cls._create(url, where, segment_size)
        except NotADirectoryError as error:
            raise ForeignVolumeError(f"{url} is no directory; it was not touched", url=url) from error
        except (OSError, ValueError) as error:
            raise _failed(url, "open", error) from error
        directory = cls(where, descriptor, segment_size, read_only=options.read_only)
        try:
            if options.create and options.exclusive:
                raise AlreadyExistsError(f"{url} exists already; it was not touched", url=url)
            directory._open_segments(url)
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def _create(cls, url: str, path: Path, segment_size: int) -> Self:
        """Make the directory under another name, so that one half made is never taken for a volume."""
        temporary = path.parent / f".{path.name[:60]}.{secrets.token_hex(8)}.new"
        try:
            temporary.mkdir()
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{url}: the directory that it is to be in does not exist", url=url
            ) from error
        except OSError as error:
            raise _failed(url, "create", error) from error
        return cls(temporary, descriptor, segment_size, read_only=False, new_path=path)

    def _open_segments(self, url: str) -> None:
        with os.scandir(self._descriptor) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.endswith(_UNFINISHED))
        if names != [_name(index) for index in range(len(names))]:
            unexpected = next(name for index, name in enumerate(names) if name != _name(index))
            raise ForeignVolumeError(
                f"{url} holds {unexpected!r}, no run of segments; it was not touched", url=url
            )
        flags = os.O_RDONLY if self._read_only else os.O_RDWR
        for index, name in enumerate(names):
            try:
                # Not to wait for the other end of a FIFO that has a segment's name.
                self.segments.append(os.open(name, flags | _FLAGS | os.O_NONBLOCK, dir_fd=self._descriptor))
            except OSError as error:
                raise _failed(url, "open", error) from error
            status = os.fstat(self.segments[index])
            size = status.st_size
            first = os.fstat(self.segments[0]).st_size
            if not stat.S_ISREG(status.st_mode) or size != first or size == 0:
                raise ForeignVolumeError(
                    f"{url}: {name} has {size} bytes, the first segment {first}; it was not touched", url=url
                )
            self.segment_size = size

    def lock(self, url: str, *, exclusive: bool) -> None:
        """Take the kernel's lock on the directory itself: there is no lock file that anybody could delete."""
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(os.fstat(self._descriptor))
            raise LockedError(f"{url} is in use by {holder}", url=url, holder=holder) from error
        if not self._new_path and not self._is_named():
            raise MediumError(
                f"{url} was deleted or replaced while it was being opened; open it again",
                url=url,
                operation="lock",
                offset=0,
                length=0,
                errno=errno.ESTALE,
            )
        # Whoever held the lock until now may have added segments.
        self._close_segments()
        self._open_segments(url)

    def _is_named(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        return False

    def extend(self, count: int) -> None:
        """Make the segments up to `count`, whole and flushed before they get names; OSError adds none."""
        old = len(self.segments)
        if count <= old:
            return
        self._check_space(count)
        made: list[int] = []
        try:
            made.extend(map(self._make_segment, range(old, count)))
            for index in range(old, count):
                os.rename(
                    _name(index) + _UNFINISHED,
                    _name(index),
                    src_dir_fd=self._descriptor,
                    dst_dir_fd=self._descriptor,
                )
            os.fsync(self._descriptor)
        except BaseException:
            for descriptor in made:
                os.close(descriptor)
            # From the last one down, so that at no moment a gap is left.
            for index in reversed(range(old, count)):
                for name in (_name(index), _name(index) + _UNFINISHED):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=self._descriptor)
            raise
        self.segments += made

    def _check_space(self, count: int) -> None:
        """Raise OSError where it is plain that there is no space, rather than fill the disk to find out."""
        space = os.fstatvfs(self._descriptor)
        added = (count - len(self.segments)) * self.segment_size
        if count > _COUNT_MAX or added > space.f_bavail * space.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _make_segment(self, index: int) -> int:
        name = _name(index) + _UNFINISHED
        descriptor = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666, dir_fd=self._descriptor
        )
        try:
            at = 0
            while at < self.segment_size:
                at += os.pwrite(descriptor, memoryview(_ZEROS)[: self.segment_size - at], at)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def publish(self, url: str) -> None:
        """Give a new directory its name, durably."""
        if not self._new_path:
            return
        try:
            # Takes the place of an empty directory at most; of anything else it fails.
            self.path.rename(self._new_path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise AlreadyExistsError(
                    f"{url} was made by somebody else in the meantime; it was not touched", url=url
                ) from error
            raise
        self.path, self._new_path = self._new_path, None
        parent = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def close(self) -> None:
        """Close everything, and remove a directory that was not published. Closing twice is allowed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        unpublished = len(self.segments) if self._new_path else 0
        self._close_segments()
        with contextlib.suppress(OSError):
            for index in range(unpublished):
                os.unlink(_name(index), dir_fd=descriptor)
            if self._new_path:
                self.path.rmdir()
        os.close(descriptor)

    def _close_segments(self) -> None:
        segments, self.segments = self.segments, []
        for descriptor in segments:
            os.close(descriptor)


def _failed(url: str, operation: str, error: OSError | ValueError) -> MediumError:
    code = getattr(error, "errno", None) or errno.EINVAL
    return MediumError(
        f"{url}: {operation} failed: {error}", url=url, operation=operation, offset=0, length=0, errno=code
    )


def _holder(status: os.stat_result) -> str:
    """Name the process that holds the lock on a directory, as far as the kernel tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # "1: FLOCK  ADVISORY  WRITE 5277 fe:00:2272328 0 EOF"
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(f":{status.st_ino}"):
                return f"process {fields[4]}"
    return "unknown"
