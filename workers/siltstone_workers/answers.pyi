from collections.abc import Callable

from siltstone.errors import ProtocolError, SiltstoneError
from siltstone_workers.receiver import Receiver
from siltstone_workers.waiting import Awake

class Answer:
    asked: float
    request: int
    has_arrived: bool
    error: SiltstoneError | None
    refusal: list[object] | None
    bulk: memoryview | None
    def __init__(self, request: int) -> None: ...

class Answers:
    awake: Awake
    expected: dict[int, Answer]
    heard: Callable[[int, object], object]
    def __init__(
        self,
        receiver: Receiver,
        pidfd: int,
        broken: Callable[[ProtocolError], None],
    ) -> None: ...
    def expect(self) -> Answer: ...
    def wait(self, answer: Answer, seconds: float) -> bool: ...
    def end(self, error: Callable[[], SiltstoneError]) -> None: ...
    def settle(self) -> None: ...
