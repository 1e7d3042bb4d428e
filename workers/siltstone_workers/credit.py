"""How much more a worker may be sent: as much as a part of its pipe holds, until it tells what it dealt with."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Credit:
    """Bytes that may still be sent. Any thread may give, one at a time takes.

    :param window: how many they are at first
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.left = window
        #: what the last :meth:`take` took: 0 where it took nothing, whatever interrupted it
        self.taken = 0
        # Taken by itself, never through the condition: that takes it in Python, where an interrupt leaves it held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def take(self, size: int, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Take `size` bytes once there are as many, or all there ever are; False where there are not within `seconds`,
        or it is over, which whoever ends it says by :meth:`wake`."""
        self.taken = 0
        needed = min(size, self.window)
        with self._lock:
            if self.left < needed:
                end = time.monotonic() + seconds
                while self.left < needed and not is_over():
                    if not self._changed.wait(end - time.monotonic()) and self.left < needed:
                        return False
            if is_over():
                return False
            # Both or none: no interrupt comes between them.
            self.left -= size
            self.taken = size
        return True

    def give(self, size: int) -> None:
        """What took `size` bytes has been dealt with."""
        with self._lock:
            self.left += size
            self._changed.notify_all()

    def wake(self) -> None:
        """Let who waits look whether it is over."""
        with self._lock:
            self._changed.notify_all()
