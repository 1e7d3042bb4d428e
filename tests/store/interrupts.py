"""^C at a place that a test chooses, while something is done."""

from __future__ import annotations

import dis
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


_INTERRUPTED_BEHIND = {"RESUME", "CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}


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


class Anywhere(Interrupt):
    """^C wherever the interpreter looks for one, in whatever is called."""

    def trace(self, frame: Any, _event: str, _argument: object) -> Any:
        if frame.f_code is Interrupt.while_.__code__:
            return None
        names = {each.offset: each.opname for each in dis.get_instructions(frame.f_code)}
        frame.f_trace_opcodes = True
        behind = "RESUME"

        def step(frame: Any, event: str, _argument: object) -> Any:
            nonlocal behind
            if event == "opcode":
                if behind in _INTERRUPTED_BEHIND:
                    self.passes()
                behind = names.get(frame.f_lasti, "")
            return step

        return step


def ends(act: Callable[[], object]) -> bool:
    """Whether it comes to an end, in a thread of its own."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(timeout=20)
    return not thread.is_alive()
