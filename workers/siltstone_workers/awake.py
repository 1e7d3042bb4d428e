"""How long a wait goes on without sleep: as long as such waits take, where that is short."""

from __future__ import annotations

from typing import Final

#: a wait that takes longer than this is slept through: waking up costs little beside it [seconds]
AWAKE_MAX: Final = 0.001
#: the part that the last wait has in what is expected of the next
_WEIGHT: Final = 0.125


class Awake:
    """Learns from the waits for one thing, which one thread at a time waits for.

    To wake takes some 40 microseconds, which a commit pays twice. To look on takes processor time from others. So only
    what comes soon is looked for.
    """

    def __init__(self) -> None:
        self._expected = AWAKE_MAX / 4

    @property
    def seconds(self) -> float:
        """For how long the next wait is worth it."""
        # Twice as long as usual: most come within that. What usually comes late is not looked for at all.
        return min(2 * self._expected, AWAKE_MAX) if self._expected < AWAKE_MAX else 0.0

    def took(self, seconds: float) -> None:
        """A wait took so long."""
        # One that took for ever counts as a long one: it says nothing of those after it.
        self._expected += _WEIGHT * (min(seconds, 4 * AWAKE_MAX) - self._expected)
