"""Backend ``memory``: a volume in this process's memory, for tests and for stores that need not last."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from siltstone.errors import AlreadyExistsError, ClosedError, DiskFullError, LockedError, NotFoundError
from siltstone.plugin import BackendOptions, BackendType, hookimpl
from siltstone.volume.backend import Backend
from siltstone_plugins._buffers import aligned, flat
from siltstone_plugins._failures import check_range, failed, refuse_writing
from siltstone_plugins._holders import describe
from siltstone_plugins._options import check_names, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

SCHEME: Final = "memory"
CAPACITY_DEFAULT: Final = 1 << 30
OPTIONS: Final = {
    "capacity": f"bytes that it can grow to, default {CAPACITY_DEFAULT}; memory is taken as it is written"
}
_CAPACITY_MAX: Final = 1 << 46
_PAGE: Final = 4096


class _Medium:
    """The bytes, and who has them. One lives as long as its name, or its one backend."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.size = 0
        self.guard = threading.Lock()
        self.writers = 0
        self.readers = 0


# The media that have a name, and the lock over it.
_named: dict[str, _Medium] = {}
_naming: Final = threading.Lock()


class MemoryBackend(Backend):
    """A run of memory. See :func:`open_memory`."""

    def __init__(self, name: str, medium: _Medium, options: BackendOptions, *, new: bool) -> None:
        self.url = f"{SCHEME}:{name}"
        self.read_only = options.read_only
        self.alignment = 1
        self.erase_block = 0
        self._name = name
        self._medium = medium
        self._unpublished = new and bool(name)
        self._locked = False
        self._closed = False

    @property
    def size(self) -> int:
        return self._medium.size

    def lock(self) -> None:
        """Count this backend among the medium's users; locking twice is once."""
        self._check_open()
        medium = self._medium
        with medium.guard:
            if self._locked:
                return
            if medium.writers or (medium.readers and not self.read_only):
                holder = describe(os.getpid())
                raise LockedError(f"{self.url} is in use by {holder}", url=self.url, holder=holder)
            medium.readers += self.read_only
            medium.writers += not self.read_only
            self._locked = True

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes | bytearray | memoryview:
        """Copy a range; there is no cache for `fresh` to pass by."""
        self._check_open()
        check_range(self.url, "read", offset, length, self.size, self.alignment)
        return bytes(self._medium.memory[offset : offset + length])

    def write(self, offset: int, data: Buffer) -> None:
        """Copy `data` in, without the interpreter lock where it is large."""
        self._check_writable("write")
        view = flat(data)
        check_range(self.url, "write", offset, len(view), self.size, self.alignment)
        if len(view):
            target = np.frombuffer(self._medium.memory, dtype=np.uint8, count=len(view), offset=offset)
            np.copyto(target, np.frombuffer(view, dtype=np.uint8))

    def flush(self) -> None:
        """Do nothing: memory has no stable storage, and a process that ends takes it along."""
        self._check_writable("flush")

    def discard(self, offset: int, length: int) -> None:
        """Keep the bytes: a hint that memory has no use for."""
        self._check_writable("discard")
        check_range(self.url, "discard", offset, length, self.size, self.alignment)

    def grow(self, size: int) -> None:
        """Make more of the memory visible; DiskFullError beyond the capacity."""
        self._check_writable("grow")
        medium = self._medium
        with medium.guard:
            if size > len(medium.memory):
                raise DiskFullError(
                    f"{self.url} has a capacity of {len(medium.memory)} bytes, {size} are needed",
                    url=self.url,
                    needed=size - medium.size,
                )
            medium.size = max(medium.size, size)

    def map(self, offset: int, length: int) -> memoryview | None:
        """Return a view of the memory itself."""
        self._check_open()
        check_range(self.url, "map", offset, length, self.size, 1)
        check_range(self.url, "map", offset, 0, self.size, _PAGE)
        return self._medium.memory[offset : offset + length].toreadonly()

    def publish(self) -> None:
        """Give a new medium its name, under which the next one to open it finds it."""
        self._check_open()
        if not self._unpublished:
            return
        with _naming:
            if self._name in _named:
                raise AlreadyExistsError(
                    f"{self.url} was made by somebody else in the meantime; it was not touched", url=self.url
                )
            _named[self._name] = self._medium
        self._unpublished = False

    def close(self) -> None:
        """Give up the lock. A private medium is gone with its last view."""
        self._closed = True
        with self._medium.guard:
            if self._locked:
                self._locked = False
                self._medium.readers -= self.read_only
                self._medium.writers -= not self.read_only

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.url} is closed", what=self.url)

    def _check_writable(self, operation: str) -> None:
        self._check_open()
        if self.read_only:
            raise refuse_writing(self.url, operation)


def open_memory(rest: str, options: BackendOptions) -> MemoryBackend:
    """Open the memory called `rest`, shared by this process under that name, or with no name new memory.

    A name that is not there is made with `create` and can be found after :meth:`MemoryBackend.publish`; its
    capacity is what the first opener asked for. It stays until :func:`forget` or the end of the process.
    Raises NotFoundError, AlreadyExistsError.
    """
    check_names(SCHEME, options, OPTIONS)
    capacity = number(SCHEME, options.extra, "capacity", CAPACITY_DEFAULT, low=_PAGE, high=_CAPACITY_MAX)
    url = f"{SCHEME}:{rest}"
    with _naming:
        medium = _named.get(rest) if rest else None
    if medium is not None:
        if options.create and options.exclusive:
            raise AlreadyExistsError(f"{url} exists already; it was not touched", url=url)
        return MemoryBackend(rest, medium, options, new=False)
    if rest and (options.read_only or not options.create):
        raise NotFoundError(f"{url} does not exist in this process", url=url)
    try:
        memory = aligned(capacity)
    except OSError as error:
        raise failed(url, "open", 0, capacity, error) from error
    return MemoryBackend(rest, _Medium(memory), options, new=True)


def forget(name: str) -> None:
    """Let the memory of this name go; whoever has it open keeps it. Does nothing where there is none."""
    with _naming:
        _named.pop(name, None)


@hookimpl
def siltstone_backends() -> Iterable[BackendType]:
    """Yield the backend ``memory``, which claims no paths."""
    yield BackendType(scheme=SCHEME, open=open_memory, options=OPTIONS)
