"""^C at a place that a test chooses, while something is done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupt:
    """^C at the n-th of some places, which :meth:`trace` counts.

    :param at: n
    """

    def __init__(self, at: int) -> None:
        self._left = at

    def trace(self, frame: Any, event: str, argument: object) -> Any:
        """As sys.settrace wants it; calls :meth:`passes` at each place."""
        raise NotImplementedError

    def passes(self) -> None:
        """One place more: KeyboardInterrupt at the one that was chosen, and none after that."""
        self._left -= 1
        if self._left == 0:
            sys.settrace(None)
            raise KeyboardInterrupt

    def while_(self, act: Callable[[], object]) -> bool:
        """Whether it came while this was done."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            act()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False
