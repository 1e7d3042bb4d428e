import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

LOOK_SECONDS: Final[float]

class GroupCommit:
    flush: Callable[[], None]
    asleep: deque[Any]
    leading: threading.Lock
    ended: int
    def __init__(self, flush: Callable[[], None], look_seconds: float = ...) -> None: ...
    def ask(self) -> None: ...
