"""A file volume whose medium does what a test tells it to, opened as ``faulty:PATH``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from siltstone.errors import MediumError
from siltstone.plugin import BackendOptions, BackendType, hookimpl
from siltstone.plugin.host import PluginHost
from siltstone.volume.backend import Backend
from siltstone_plugins.file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer


def nothing(*_arguments: Any) -> None:
    """Let it happen."""


class Faults:
    """What the medium shall do: each hook is called before the transfer, and may raise instead of it.

    `read` and `write` get (backend, offset, length or data), `flush` the backend, `grow` (backend, size), `discard`
    (backend, offset, length).
    """

    def __init__(self) -> None:
        self.read: Callable[..., None] = nothing
        self.write: Callable[..., None] = nothing
        self.flush: Callable[..., None] = nothing
        self.grow: Callable[..., None] = nothing
        self.discard: Callable[..., None] = nothing
        #: whether a volume can be mapped
        self.mapped = True
        #: transfers so far: ("write", offset, length), ("flush", 0, 0)
        self.log: list[tuple[str, int, int]] = []

    @hookimpl
    def siltstone_backends(self) -> Iterable[BackendType]:
        """Yield the backend ``faulty``."""

        def open_faulty(rest: str, options: BackendOptions) -> FaultyBackend:
            return FaultyBackend(open_file(rest, options), self)

        yield BackendType(scheme="faulty", open=open_faulty)

    def host(self) -> PluginHost:
        """The installed plugins and this one."""
        return PluginHost.load(None, extra=[self])


class FaultyBackend(Backend):
    """Passes everything on to a file, unless a hook says otherwise."""

    def __init__(self, inner: Backend, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.url = inner.url
        self.read_only = inner.read_only
        self.alignment = inner.alignment
        self.erase_block = inner.erase_block

    @property
    def size(self) -> int:
        return self.inner.size

    def lock(self) -> None:
        self.inner.lock()

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes | bytearray | memoryview:
        self.faults.read(self.inner, offset, length)
        return self.inner.read(offset, length, fresh=fresh)

    def write(self, offset: int, data: Buffer) -> None:
        self.faults.write(self.inner, offset, data)
        self.inner.write(offset, data)
        self.faults.log.append(("write", offset, memoryview(data).nbytes))

    def flush(self) -> None:
        self.faults.flush(self.inner)
        self.inner.flush()
        self.faults.log.append(("flush", 0, 0))

    def discard(self, offset: int, length: int) -> None:
        self.faults.discard(self.inner, offset, length)
        self.inner.discard(offset, length)

    def grow(self, size: int) -> None:
        self.faults.grow(self.inner, size)
        self.inner.grow(size)

    def publish(self) -> None:
        self.inner.publish()

    def map(self, offset: int, length: int) -> memoryview | None:
        return self.inner.map(offset, length) if self.faults.mapped else None

    def close(self) -> None:
        self.inner.close()


def input_output_error(operation: str, offset: int = 0, length: int = 0) -> MediumError:
    """EIO, as a backend raises it."""
    return MediumError(
        f"faulty: {operation} of {length} bytes at offset {offset} failed: EIO",
        url="faulty",
        operation=operation,
        offset=offset,
        length=length,
        errno=errno.EIO,
    )


def at_call(number: int, act: Callable[..., None]) -> Callable[..., None]:
    """Do `act` at the call with this number, counted from 1; let the others happen."""
    calls = 0

    def hook(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            act(*arguments)

    return hook


def failing(operation: str) -> Callable[..., None]:
    """A hook that raises EIO."""

    def hook(_inner: Backend, offset: int = 0, what: Any = b"") -> None:
        length = what if isinstance(what, int) else len(memoryview(what))
        raise input_output_error(operation, offset, length)

    return hook
