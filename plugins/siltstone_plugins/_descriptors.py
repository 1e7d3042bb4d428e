"""Descriptors that stay open while any thread is inside the kernel with them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from siltstone.errors import ClosedError

if TYPE_CHECKING:
    from types import TracebackType


class Descriptors:
    """The open descriptors of one backend, as a context manager around each use.

    Closing while a transfer runs would let the kernel give its number to another file, and the transfer
    would go there. So the last user closes.

    :param url: names the backend in errors
    :param descriptors: owned from now on
    """

    def __init__(self, url: str, *descriptors: int) -> None:
        self._url = url
        self._open = list(descriptors)
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False
        self._process = os.getpid()
        #: other processes have the locked descriptor too: closing leaves the lock to them
        self.keep_lock = False

    def __enter__(self) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._url} is closed", what=self._url)
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            self._release()

    def add(self, descriptor: int) -> None:
        """Own one more descriptor; called from inside a use."""
        with self._lock:
            self._open.append(descriptor)

    def close(self) -> None:
        """Let no new use begin; close now, or when the last use ends."""
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        if self._closed and not self._users:
            while self._open:
                # An error here has nothing to report: what mattered was flushed, and the number is free.
                self._let_go(self._open.pop())

    def _let_go(self, descriptor: int) -> None:
        # A child that was forked from here shares the lock, and may live on: the owner gives it up for both.
        if os.getpid() == self._process and not self.keep_lock:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def __del__(self) -> None:
        self._closed = True
        self._release()
