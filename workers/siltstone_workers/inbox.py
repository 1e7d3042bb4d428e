"""The requests of the core, in their order, for the one thread of a worker that deals with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from siltstone_workers.waiting import Awake

if TYPE_CHECKING:
    from siltstone_workers.pipes import Message
    from siltstone_workers.receiver import Receiver

#: behind a message with so much bulk the next is not looked for without sleep: whoever sends that much at a time has
#: better use for the processor [bytes]
_LONG_BYTES: Final = 32 * 1024


class Inbox:
    """Where a worker gets what is next.

    :param receiver: of what the core sends
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._awake = Awake()
        self._streams = False  # the last message was long: nobody waits for what becomes of each

    def next_request(self, timeout: float) -> Message | None:
        """The next message; None where none came within `timeout` seconds, 0 to look only."""
        # What comes in a stream says nothing of how long others take.
        message = self._receiver.receive(timeout, None if self._streams else self._awake)
        if message is not None:
            self._streams = message.bulk is not None and len(message.bulk) >= _LONG_BYTES
        return message
