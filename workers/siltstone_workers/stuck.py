"""How long lookups have met a shard whose index is in the middle of a change."""

from __future__ import annotations

import time
from typing import Final

#: how long a lookup that met such a change waits before it looks again [seconds]
_AGAIN_SECONDS: Final = 0.0005
#: a change that nobody has met for so long is another one when it is met again [seconds]
_ANOTHER_SECONDS: Final = 1.0


class StuckShards:
    """What lookups met, of all threads together: one alone may come too late to see how long it takes."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[float, float]] = {}

    def met(self, shard: int) -> float:
        """A lookup met a change in this shard: how long some lookup or other has met one there [seconds]."""
        now = time.monotonic()
        since, last = self._since.get(shard, (now, now))
        since = since if now - last < _ANOTHER_SECONDS else now
        self._since[shard] = since, now
        return now - since

    def forget(self, shard: int) -> None:
        """Another process writes this shard from here on: what the one before left is none of its doing."""
        self._since.pop(shard, None)

    @staticmethod
    def wait() -> None:
        """Give the writer time to go on."""
        time.sleep(_AGAIN_SECONDS)
