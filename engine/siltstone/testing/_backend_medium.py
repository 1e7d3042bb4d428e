"""What the backend conformance tests stand on: a medium, and how to open it."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from siltstone.volume.backend import Backend

KIB = 1024
PAGE = 4096


class Medium(ABC):
    """How the tests get at the medium; a subclass says what it can do where the defaults are wrong."""

    #: bytes that the tests use; the medium has or can grow to this many
    span: ClassVar[int] = 2048 * KIB
    #: the same medium can be opened again after it was closed, and while it is open
    reopens: ClassVar[bool] = True
    #: opening with neither `create` nor a medium that was published raises NotFoundError
    creates: ClassVar[bool] = True
    #: more bytes than the medium can ever have
    too_large: ClassVar[int] = 1 << 62

    @abstractmethod
    def open(self, *, read_only: bool = False, create: bool = False) -> Backend:
        """Open the medium of this test; it is not locked."""

    @contextmanager
    def opened(self) -> Iterator[Backend]:
        """Yield the medium as the engine has it: open, locked, `span` bytes long, published."""
        with self.open(create=True) as backend:
            backend.lock()
            backend.grow(self.span)
            backend.publish()
            yield backend

    @contextmanager
    def opened_again(self, *, read_only: bool = False) -> Iterator[Backend]:
        """Yield a medium that :meth:`opened` has left, locked."""
        with self.open(read_only=read_only) as backend:
            backend.lock()
            yield backend


def pattern(seed: int, length: int) -> bytes:
    """Return bytes that look random and are the same for the same seed."""
    return random.Random(seed).randbytes(length)


def changes(backend: Backend) -> list[Callable[[], None]]:
    """Return every call that changes a medium."""
    return [
        lambda: backend.write(0, bytes(PAGE)),
        lambda: backend.discard(0, PAGE),
        lambda: backend.grow(backend.size + PAGE),
        backend.flush,
    ]


def together(works: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; raise what the first of them raised."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the test sees it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
