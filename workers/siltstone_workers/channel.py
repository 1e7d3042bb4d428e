"""The two ends of a pipe: whole messages go in, and come out."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from siltstone.volume.descriptors import above_standard
from siltstone_workers.errors import ProtocolError
from siltstone_workers.frames import (
    BULK_HEAD_SIZE,
    DROP,
    FRAME_MIN,
    MESSAGE_MAX,
    PART,
    PREFIX_SIZE,
    Assembler,
    encode_frame,
    encode_message,
    frame_length,
    frame_of,
)
from siltstone_workers.waiting import wait_readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

__all__ = [
    "SHORT_MESSAGE",
    "ChannelClosedError",
    "Message",
    "Outgoing",
    "Receiver",
    "Sender",
    "SilentError",
    "frame_limit",
    "make_pipe",
    "make_pipes",
    "pipe_size",
]

#: what a pipe is asked to hold [bytes]
_PIPE_SIZE: Final = 1024 * 1024
_BUFFER_SIZE: Final = 64 * 1024
#: a message that is not long [bytes]
SHORT_MESSAGE: Final = 1024
#: pieces that one system call writes
_PIECES_MAX: Final = 512


class ChannelClosedError(Exception):
    """The other end is gone, or this one was closed."""


class SilentError(Exception):
    """The other end took nothing, or sent nothing, for as long as was waited."""


#: a message that is to be sent: its fields, and its bulk in pieces, none of them where it has no bulk
Outgoing = tuple["Sequence[Any]", "Sequence[Buffer]"]


class Message(NamedTuple):
    """What came through: the message, and its bulk."""

    fields: list[Any]
    bulk: memoryview | None


def make_pipe() -> tuple[int, int]:
    """A pipe, as large as the system allows up to 1 MiB: (read end, write end), neither inherited."""
    ends = os.pipe2(os.O_CLOEXEC)
    reading, writing = above_standard(ends[0]), above_standard(ends[1])
    size = _PIPE_SIZE
    while size > _BUFFER_SIZE:
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            # Beyond what this user's pipes may hold; half as much may still be within it.
            size //= 2
        else:
            break
    return reading, writing


def make_pipes(count: int) -> list[tuple[int, int]]:
    """So many pipes, or none where the system does not give all of them."""
    made: list[tuple[int, int]] = []
    try:
        while len(made) < count:
            made.append(make_pipe())
    except BaseException:
        for end in (end for pipe in made for end in pipe):
            os.close(end)
        raise
    return made


def pipe_size(descriptor: int) -> int:
    """Bytes that a pipe holds."""
    return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)


def frame_limit(descriptor: int) -> int:
    """Bytes that the body of one frame may have on this pipe: a quarter of it, so that some are under way at once."""
    return max(FRAME_MIN, pipe_size(descriptor) // 4)


class Sender:
    """The writing end of a pipe, owned from now on. Any thread may send.

    `window` is how many bytes of counted messages (:func:`siltstone_workers.frames.credit_of`) may be under way: half
    of the pipe, so that they never block in it, and what is not counted has the other half.

    :param silence: how long a write may find the pipe full before the other end counts as hung [seconds]; None:
        for ever
    """

    def __init__(self, writing: int, *, silence: float | None = None) -> None:
        self._writing = writing
        self._silence = silence
        self._limit = frame_limit(writing)
        #: bytes of bulk that a frame takes beside a message of up to :data:`SHORT_MESSAGE` bytes
        self.frame_room = self._limit - SHORT_MESSAGE - BULK_HEAD_SIZE
        self.window = pipe_size(writing) // 2
        os.set_blocking(writing, False)
        self._send_lock = threading.Lock()
        self._torn = False  # a frame was begun and not ended: nothing after it would be understood
        self._in_parts = False
        self._closed = False

    def send(self, fields: Sequence[Any], bulk: Buffer | None = None) -> None:
        """Write one message, in parts where its bulk is longer than a frame.

        Returns when all of it is in the pipe. ChannelClosedError, SilentError: the other end is gone or hung, and
        nothing more can be sent.
        """
        self.send_all([(fields, () if bulk is None else (bulk,))])

    def send_all(self, messages: Sequence[Outgoing]) -> None:
        """Write messages one after another, in one go as far as they are short; errors as in :meth:`send`."""
        pieces: list[Buffer] = []
        with self._send_lock:
            if self._in_parts:
                self._write(encode_frame([DROP]))
                self._in_parts = False
            for fields, bulk in messages:
                body = encode_message(list(fields))
                views = [memoryview(piece).cast("B") for piece in bulk]
                if sum(map(len, views)) > self._limit - len(body) - BULK_HEAD_SIZE:
                    self._write(pieces)
                    pieces = []
                    views = [self._write_parts(views)]
                pieces += frame_of(body, views)
                if self._in_parts or len(pieces) > _PIECES_MAX:
                    self._write(pieces)
                    pieces = []
                    self._in_parts = False
            self._write(pieces)

    def _write_parts(self, views: list[memoryview]) -> memoryview:
        """Write all of a message's bulk that its own frame does not take; the rest."""
        view = views[0] if len(views) == 1 else memoryview(b"".join(views))
        room = self._limit - MESSAGE_MAX - BULK_HEAD_SIZE
        self._in_parts = True
        while len(view) > room:
            self._write(encode_frame([PART], view[:room]))
            view = view[room:]
        return view

    def _write(self, pieces: list[Buffer]) -> int:
        if self._torn or self._closed:
            raise ChannelClosedError("it is closed, or an earlier message was not sent whole")
        if not pieces:
            return 0
        size = sum(memoryview(piece).nbytes for piece in pieces)
        self._torn = True
        try:
            done = self._put(pieces)
            while done < size:
                self._wait_writable()
                rest = memoryview(b"".join(bytes(piece) for piece in pieces))[done:]
                done += self._put([rest])
        except BrokenPipeError as error:
            raise ChannelClosedError("the other end is gone") from error
        # Also an interrupt leaves it set: how much of the frame is in the pipe is then not known.
        self._torn = False
        return size

    def _put(self, pieces: list[Buffer]) -> int:
        try:
            return os.writev(self._writing, pieces[:_PIECES_MAX])
        except BlockingIOError:
            return 0

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._writing, select.POLLOUT)
        if not poll.poll(None if self._silence is None else self._silence * 1000):
            raise SilentError(f"the pipe stayed full for {self._silence} s")

    def close(self) -> None:
        """Close the pipe, once no send is under way; closing twice is allowed."""
        with self._send_lock:
            if not self._closed:
                self._closed = True
                with suppress(OSError):
                    os.close(self._writing)


class Receiver:
    """The reading end of a pipe, owned from now on. One thread at a time may receive.

    `window` is what the sender has as its window.
    """

    def __init__(self, reading: int) -> None:
        self.reading = reading
        self._limit = frame_limit(reading)
        self.window = pipe_size(reading) // 2
        self._buffer = bytearray(_BUFFER_SIZE)
        self._start = self._fill = 0
        self._assembler = Assembler()
        #: a body that does not fit the buffer, and how much of it is there
        self._long: bytearray | None = None
        self._long_fill = 0
        self._is_open = True

    def receive(self, timeout: float | None = None, *, awake: float = 0.0) -> Message | None:
        """The next whole message; None where none came within `timeout` seconds, `awake` of them without sleep.

        ChannelClosedError at the end of the pipe; ProtocolError where it ends inside a frame, or breaks a rule.
        """
        if not self._is_open:
            raise ChannelClosedError("it is closed")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            body = self._take_body(deadline, awake)
            if body is None:
                return None
            taken = self._assembler.take(body)
            if taken is not None:
                return Message(*taken)
            # However fast parts come, the time is kept; those that are here stay.
            if deadline is not None and time.monotonic() >= deadline:
                return None

    @property
    def has_buffered(self) -> bool:
        """Whether a whole frame has been read already: the next :meth:`receive` will not wait."""
        have = self._fill - self._start
        if have < PREFIX_SIZE:
            return False
        length = int.from_bytes(self._buffer[self._start : self._start + PREFIX_SIZE], "big")
        return have >= PREFIX_SIZE + length

    def _take_body(self, deadline: float | None, awake: float) -> memoryview | None:
        """The next body, in memory of its own; None, with nothing lost, where the time was too short."""
        if self._long is None:
            while self._fill - self._start < PREFIX_SIZE:
                if not self._read_some(deadline, awake):
                    return None
            length = frame_length(self._buffer[self._start : self._start + PREFIX_SIZE], self._limit)
            while self._fill - self._start < min(PREFIX_SIZE + length, _BUFFER_SIZE):
                if not self._read_some(deadline, 0.0):
                    return None
            start = self._start + PREFIX_SIZE
            have = min(length, self._fill - start)
            if have == length:
                self._start = start + length
                return memoryview(bytes(memoryview(self._buffer)[start : start + length]))
            # A long one: what is here is copied, the rest is read to where it stays.
            self._long = bytearray(length)
            self._long[:have] = memoryview(self._buffer)[start : start + have]
            self._long_fill = have
            self._start = self._fill = 0
        while (left := len(self._long) - self._long_fill) > 0:
            if not self._is_readable(deadline, 0.0):
                return None
            count = os.readv(self.reading, [memoryview(self._long)[self._long_fill :]])
            if count == 0:
                raise ProtocolError(
                    f"the pipe ended {left} bytes before the end of a frame", rule="whole frames", value=left
                )
            self._long_fill += count
        whole, self._long = self._long, None
        return memoryview(whole)

    def _read_some(self, deadline: float | None, awake: float) -> bool:
        """Read what there is into the buffer; False where nothing came in time."""
        if self._start:
            left = self._fill - self._start
            self._buffer[:left] = self._buffer[self._start : self._fill]
            self._start, self._fill = 0, left
        if not self._is_readable(deadline, awake):
            return False
        count = os.readv(self.reading, [memoryview(self._buffer)[self._fill :]])
        if count == 0:
            if self._fill:
                raise ProtocolError(
                    f"the pipe ended {self._fill} bytes into a frame", rule="whole frames", value=self._fill
                )
            raise ChannelClosedError("the other end is gone")
        self._fill += count
        return True

    def _is_readable(self, deadline: float | None, awake: float) -> bool:
        """Whether something came in time; without a deadline the read itself waits."""
        if deadline is None:
            return True
        return bool(wait_readable(self.reading, -1, max(0.0, deadline - time.monotonic()), awake))

    def close(self) -> None:
        """Close the pipe; closing twice is allowed."""
        if self._is_open:
            self._is_open = False
            with suppress(OSError):
                os.close(self.reading)
