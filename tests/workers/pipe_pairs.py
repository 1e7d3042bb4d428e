"""Pipes for tests: both ends of one, a bare end of one, and threads that tell how they ended."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from siltstone_workers.encoding import encode_frame
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: longer than anything here takes, short enough to end a test that hangs [s]
PATIENCE_S = 30.0


def frame(message: list[Any], bulk: bytes | None = None) -> bytes:
    """The bytes of one frame."""
    return b"".join(bytes(piece) for piece in encode_frame(message, bulk))


def pattern(size: int) -> bytes:
    """So many bytes that tell where they are cut."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def pipe(size: int | None = None) -> tuple[int, int]:
    """A pipe that holds `size` bytes: (read end, write end)."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if size is not None:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
    return reading, writing


class Ends:
    """A pipe with a sender and a receiver."""

    def __init__(self, size: int | None, silence: float | None) -> None:
        reading, self.writing = pipe(size)
        self.sender = Sender(self.writing, silence=silence)
        self.receiver = Receiver(reading)


@contextmanager
def ends(size: int | None = None, silence: float | None = None) -> Iterator[Ends]:
    """Both ends of a pipe, closed at the end."""
    both = Ends(size, silence)
    try:
        yield both
    finally:
        both.receiver.close()
        both.sender.close()


class Writer:
    """A receiver, and the other end of its pipe as a bare descriptor."""

    def __init__(self, size: int | None) -> None:
        reading, self._writing = pipe(size)
        self._is_open = True
        self.receiver = Receiver(reading)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._writing, view) :]

    def end(self) -> None:
        """Nothing more will be written."""
        if self._is_open:
            self._is_open = False
            os.close(self._writing)


@contextmanager
def bare_writer(size: int | None = None) -> Iterator[Writer]:
    """A receiver and a bare end to write to, closed at the end."""
    writer = Writer(size)
    try:
        yield writer
    finally:
        writer.end()
        writer.receiver.close()


class Task:
    """A function in a thread of its own; :meth:`result` is what it returned, or raises what it raised."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            self._error = error

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it did not end"
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._value

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()


def wait_readable(descriptor: int) -> None:
    """Return once a pipe holds something: its writer has begun."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(PATIENCE_S * 1000), "nothing came"
