"""Backend ``segments:DIR``: a volume in a directory of files of equal size.

For media that hold no large files. The volume's bytes are those of ``segment-00000000``,
``segment-00000001``, … one after the other. There is nothing to map, so that the engine keeps a copy of its
journals in memory.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from siltstone.errors import (
    ClosedError,
    ConfigError,
    DiskFullError,
    MediumError,
    NotFoundError,
    ReadOnlyError,
)
from siltstone.plugin import BackendType
from siltstone.volume.backend import Backend
from siltstone_example.segment_files import SegmentDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from siltstone.plugin import BackendOptions

SEGMENT_SIZE_DEFAULT: Final = 4 * 1024 * 1024
_PAGE: Final = 4096
_SEGMENT_SIZE_MIN: Final = 64 * 1024
_SEGMENT_SIZE_MAX: Final = 1 << 40
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class SegmentsBackend(Backend):
    """A directory of segment files. See :func:`open_segments`."""

    def __init__(self, url: str, directory: SegmentDirectory, *, read_only: bool) -> None:
        self.url = url
        self.read_only = read_only
        self.alignment = 1
        self.erase_block = 0
        self._directory = directory
        self._guard = threading.Lock()
        self._users = 0
        self._closed = False
        self._locked = False
        self._growing = threading.Lock()
        self._flushing = threading.Lock()
        self._flush_failure: MediumError | None = None
        # What a process that died wrote, and did not flush, is for the first flush to cover.
        self._unflushed = set(range(len(directory.segments)))

    @property
    def size(self) -> int:
        return len(self._directory.segments) * self._directory.segment_size

    def lock(self) -> None:
        with self._transfer("lock", writing=False), self._growing:
            if self._locked:
                return
            self._directory.lock(self.url, exclusive=not self.read_only)
            with self._guard:
                self._unflushed.update(range(len(self._directory.segments)))
            self._locked = True

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytearray:
        with self._transfer("read", offset, length, writing=False):
            self._check_range("read", offset, length)
            data = bytearray(length)
            view = memoryview(data)
            for index, start, part in self._parts(offset, length):
                descriptor = self._directory.segments[index]
                if fresh:
                    # Whole pages that are clean are dropped, and so the bytes come from the medium.
                    first = start - start % _PAGE
                    length_dropped = -(-(start + part) // _PAGE) * _PAGE - first
                    os.posix_fadvise(descriptor, first, length_dropped, os.POSIX_FADV_DONTNEED)
                at = index * self._directory.segment_size + start - offset
                self._fill(descriptor, view[at : at + part], start, offset, length)
            return data

    def _fill(self, descriptor: int, view: memoryview, start: int, offset: int, length: int) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], start + done)
            if count == 0:
                self._fail("read", offset, length, errno.EIO, "a segment has become shorter")
            done += count

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        # Views with gaps, and those of no bytes at all, cannot be cast.
        view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
        with self._transfer("write", offset, len(view)):
            self._check_range("write", offset, len(view))
            for index, start, part in self._parts(offset, len(view)):
                at = index * self._directory.segment_size + start - offset
                try:
                    self._put(self._directory.segments[index], view[at : at + part], start)
                finally:
                    # After it is written: a flush in between would take an earlier mark and miss the bytes.
                    with self._guard:
                        self._unflushed.add(index)

    def _put(self, descriptor: int, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            count = os.pwrite(descriptor, view[done:], start + done)
            if count == 0:
                raise OSError(errno.EIO, "the system took no more")
            done += count

    def flush(self) -> None:
        # One at a time: a second caller must not return while the first is still at work on its writes.
        with self._transfer("flush"), self._flushing:
            if self._flush_failure is not None:
                failure = self._flush_failure
                raise MediumError(f"{failure.message}; it is not tried again", **failure.fields)
            with self._guard:
                unflushed, self._unflushed = self._unflushed, set()
            try:
                for index in unflushed:
                    os.fdatasync(self._directory.segments[index])
            except OSError as error:
                try:
                    self._fail(
                        "flush", 0, self.size, error.errno or errno.EIO, "what was written may be lost"
                    )
                except MediumError as failure:
                    self._flush_failure = failure.to_keep()
                    raise

    def discard(self, offset: int, length: int) -> None:
        """Keep the bytes: a hole would have to be allocated again by the next write."""
        with self._transfer("discard", offset, length):
            self._check_range("discard", offset, length)

    def grow(self, size: int) -> None:
        """Add whole segments, written with zeros and flushed; all of them, or none."""
        with self._transfer("grow", 0, size), self._growing:
            segment_size = self._directory.segment_size
            self._directory.extend(-(-size // segment_size))

    def publish(self) -> None:
        with self._transfer("publish", writing=False), self._growing:
            self._directory.publish(self.url)

    def map(self, offset: int, length: int) -> memoryview | None:
        """Return None: a range may lie in several files. The engine keeps a copy in memory instead."""
        with self._transfer("map", offset, length, writing=False):
            return None

    def close(self) -> None:
        with self._guard:
            self._closed = True
            last = self._users == 0
        if last:
            self._directory.close()

    # ---- what every operation goes through

    @contextmanager
    def _transfer(
        self, operation: str, offset: int = 0, length: int = 0, *, writing: bool = True
    ) -> Iterator[None]:
        """Keep the descriptors open until the operation has ended, and put its failures into our errors."""
        with self._guard:
            if self._closed:
                raise ClosedError(f"{self.url} is closed", what=self.url)
            if writing and self.read_only:
                reason = "opened for reading only"
                raise ReadOnlyError(f"{self.url}: {operation} refused: it was {reason}", reason=reason)
            self._users += 1
        try:
            yield
        except OSError as error:
            self._fail(operation, offset, length, error.errno or errno.EIO)
        finally:
            with self._guard:
                self._users -= 1
                last = self._closed and self._users == 0
            if last:
                self._directory.close()

    def _fail(self, operation: str, offset: int, length: int, code: int, why: str = "") -> NoReturn:
        message = f"{self.url}: {operation} of {length} bytes at offset {offset} failed: {os.strerror(code)}"
        message += f" ({why})" if why else ""
        facts: dict[str, Any] = {"url": self.url, "operation": operation, "offset": offset, "length": length}
        if code in _NO_SPACE and operation in ("write", "grow"):
            raise DiskFullError(message, needed=length, errno=code, **facts)
        raise MediumError(message, errno=code, **facts)

    def _check_range(self, operation: str, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            self._fail(operation, offset, length, errno.EINVAL, f"the volume has {self.size} bytes")

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range into (segment, offset in it, length)."""
        segment_size = self._directory.segment_size
        end = offset + length
        while offset < end:
            index, start = divmod(offset, segment_size)
            part = min(segment_size - start, end - offset)
            yield index, start, part
            offset += part


def open_segments(rest: str, options: BackendOptions) -> SegmentsBackend:
    """Open the directory `rest`. With `create`, one that is absent is made, and gets its name when published.

    Raises NotFoundError, AlreadyExistsError, ForeignVolumeError for a directory that holds anything else, and
    ConfigError for options that it does not have.
    """
    url = f"segments:{rest}"
    if not rest:
        raise NotFoundError(f"{url}: a directory is needed, there is none", url=url)
    segment_size = _segment_size(options)
    directory = SegmentDirectory.open(url, rest, segment_size, options)
    return SegmentsBackend(url, directory, read_only=options.read_only)


def _segment_size(options: BackendOptions) -> int:
    source = "segments"
    for name in options.extra:
        if name not in SEGMENTS.options:
            raise ConfigError(f"{source}: there is no option {name!r}", source=source, key=name)
    size = options.extra.get("segment_size", SEGMENT_SIZE_DEFAULT)
    low, high = _SEGMENT_SIZE_MIN, _SEGMENT_SIZE_MAX
    if type(size) is not int or not low <= size <= high or size % _PAGE:
        rule = f"must be a multiple of {_PAGE} from {low} to {high}"
        raise ConfigError(f"{source}: segment_size {size!r} {rule}", source=source, key="segment_size")
    return size


SEGMENTS: Final = BackendType(
    scheme="segments",
    open=open_segments,
    options={"segment_size": f"bytes of each file of a new volume, default {SEGMENT_SIZE_DEFAULT}"},
)
