"""What a worker says unasked, for the one thread of the core that listens to it."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from siltstone_workers.pipes import ChannelClosedError

if TYPE_CHECKING:
    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver


class Events:
    """The messages of one worker process that are no answers.

    :param receiver: of the pipe that carries them, owned from now on
    :param pidfd: readable once the process is gone, whoever else may have its end of the pipe
    """

    def __init__(self, receiver: Receiver, pidfd: int) -> None:
        self._receiver = receiver
        self._pidfd = pidfd
        self._poll = select.poll()
        self._poll.register(receiver.reading, select.POLLIN)
        self._poll.register(pidfd, select.POLLIN)

    def listen(self, timeout: float | None) -> Message | None:
        """The next message; None after `timeout` seconds of silence.

        ChannelClosedError once the worker is gone, ProtocolError where it breaks a rule.
        """
        while True:
            if not self._receiver.has_buffered:
                ready = dict(self._poll.poll(None if timeout is None else timeout * 1000))
                if not ready:
                    return None
                if self._receiver.reading not in ready:
                    # It is gone, and what it said last has been read; somebody else may have its end of the pipe.
                    raise ChannelClosedError("the process ended")
            # What is here and no more: it may stop in the middle of a frame.
            message = self._receiver.receive(0.0)
            if message is not None:
                return message

    def listen_beside(self, answering: int, timeout: float) -> tuple[Message | None, bool]:
        """The next message, if there is one, and whether the pipe `answering` can be read; neither after `timeout`
        seconds of silence.

        ChannelClosedError, ProtocolError as in :meth:`listen`.
        """
        if self._receiver.has_buffered:
            return self._receiver.receive(0.0), True
        poll = select.poll()
        for descriptor in (self._receiver.reading, answering, self._pidfd):
            poll.register(descriptor, select.POLLIN)
        ready = dict(poll.poll(timeout * 1000))
        if self._receiver.reading in ready:
            return self._receiver.receive(0.0), True
        if ready and answering not in ready:
            raise ChannelClosedError("the process ended")
        return None, bool(ready)

    def close(self) -> None:
        """Give up the pipe; closing twice is allowed."""
        self._receiver.close()
