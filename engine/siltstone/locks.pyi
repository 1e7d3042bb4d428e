import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

_Result = TypeVar("_Result")

class Attempt:
    def __init__(self, lock: threading.Lock) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

def uninterrupted(call: Callable[[], _Result]) -> _Result: ...
