from collections.abc import Sequence
from typing import Any, Final

from typing_extensions import Buffer

from siltstone_workers.frames import Bytes

SHORT_MESSAGE: Final[int]

#: a message that is to be sent: its fields, and its bulk in pieces, none of them where it has no bulk
Outgoing = tuple[Sequence[Any], Sequence[Bytes]]

def outgoing(fields: Sequence[Any], bulk: Buffer | None) -> Outgoing: ...

class Sender:
    frame_room: int
    window: int
    sent: int
    def __init__(self, writing: int, *, silence: float | None = None) -> None: ...
    def send(self, fields: Sequence[Any], bulk: Buffer | None = None) -> None: ...
    def send_all(self, messages: list[Outgoing]) -> None: ...
    def write(self, pieces: list[Bytes], messages: int) -> None: ...
    def wait_writable(self) -> None: ...
    def close(self) -> None: ...
