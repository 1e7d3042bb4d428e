"""The writing end of a pipe: whole messages go in, of any thread."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from siltstone_workers.frames import (
    BULK_HEAD_SIZE,
    DROP,
    MESSAGE_MAX,
    PART,
    Bytes,
    Encoder,
    encode_frame,
    frame_of,
)
from siltstone_workers.pipes import ChannelClosedError, SilentError, frame_limit, window_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

#: a message that is not long [bytes]
SHORT_MESSAGE: Final = 1024
#: pieces that one system call writes
_PIECES_MAX: Final = 512

#: a message that is to be sent: its fields, and its bulk in pieces, none of them where it has no bulk
Outgoing = tuple["Sequence[Any]", "Sequence[Bytes]"]


def outgoing(fields: Sequence[Any], bulk: Buffer | None) -> Outgoing:
    """A message that is to be sent, with bulk in one piece or none; it is not copied."""
    return fields, () if bulk is None else (memoryview(bulk).cast("B"),)


class Sender:
    """The writing end of a pipe, owned from now on. Any thread may send.

    `window` is how many bytes of counted messages may be under way (:func:`siltstone_workers.pipes.window_of`), so that
    they never block in the pipe.

    :param silence: how long a write may find the pipe full before the other end counts as hung [seconds]; None:
        for ever
    """

    def __init__(self, writing: int, *, silence: float | None = None) -> None:
        self._writing = writing
        self._silence = silence
        self._limit = frame_limit(writing)
        #: bytes of bulk that a frame takes beside a message of up to :data:`SHORT_MESSAGE` bytes
        self.frame_room = self._limit - SHORT_MESSAGE - BULK_HEAD_SIZE
        self.window = window_of(writing)
        os.set_blocking(writing, False)
        self._send_lock = threading.Lock()
        self._encoder = Encoder()
        self._torn = False  # a frame was begun and not ended: nothing after it would be understood
        self._in_parts = False
        self._closed = False
        #: messages that are in the pipe whole, also where an interrupt came right behind the last byte
        self.sent = 0

    def send(self, fields: Sequence[Any], bulk: Buffer | None = None) -> None:
        """Write one message, in parts where its bulk is longer than a frame.

        Returns when all of it is in the pipe. ChannelClosedError, SilentError: the other end is gone or hung, and
        nothing more can be sent.
        """
        self.send_all([outgoing(fields, bulk)])

    def send_all(self, messages: Sequence[Outgoing]) -> None:
        """Write messages one after another, in one go as far as they are short; errors as in :meth:`send`."""
        pieces: list[Bytes] = []
        with self._send_lock:
            if self._in_parts:
                self._write(encode_frame([DROP]))
                self._in_parts = False
            gathered = 0  # messages in the pieces
            for fields, bulk in messages:
                body = self._encoder.encode(fields)
                length = sum(map(len, bulk)) if bulk else 0
                if length > self._limit - len(body) - BULK_HEAD_SIZE:
                    if pieces:
                        self._write(pieces, gathered)
                    pieces, gathered = [], 0
                    rest = self._write_parts(bulk)
                    bulk, length = (rest,), len(rest)
                pieces += frame_of(body, bulk, length)
                gathered += 1
                if self._in_parts or len(pieces) > _PIECES_MAX:
                    self._write(pieces, gathered)
                    pieces, gathered = [], 0
                    self._in_parts = False
            if pieces:
                self._write(pieces, gathered)

    def _write_parts(self, bulk: Sequence[Bytes]) -> memoryview:
        """Write all of a message's bulk that its own frame does not take; the rest."""
        view = memoryview(bulk[0] if len(bulk) == 1 else b"".join(bulk))
        room = self._limit - MESSAGE_MAX - BULK_HEAD_SIZE
        self._in_parts = True
        while len(view) > room:
            self._write(encode_frame([PART], view[:room]))
            view = view[room:]
        return view

    def _write(self, pieces: list[Bytes], messages: int = 0) -> None:
        """Write pieces, with which so many messages are whole."""
        if self._torn or self._closed:
            raise ChannelClosedError("it is closed, or an earlier message was not sent whole")
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        self._torn = True
        try:
            done = self._put(pieces)
            while done < size:
                self._wait_writable()
                rest = memoryview(b"".join(pieces))[done:]
                done += self._put([rest])
        except BrokenPipeError as error:
            raise ChannelClosedError("the other end is gone") from error
        self.sent += messages
        # Also an interrupt leaves it set: how much of the frame is in the pipe is then not known.
        self._torn = False

    def _put(self, pieces: list[Bytes]) -> int:
        try:
            return os.writev(self._writing, pieces if len(pieces) < _PIECES_MAX else pieces[:_PIECES_MAX])
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
