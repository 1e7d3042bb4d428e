"""Turn Ctrl-C and its like into a question that the work asks where it can stop, so that it ends whole."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Interrupts"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While it is entered, the first interrupting signal is noted; the second one acts as it always did.

    To be entered in the main thread.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> signal.Signals | None:
        """The signal that asked to stop, or None."""
        return self._received

    @property
    def exit_status(self) -> int:
        """What a shell gives for a command that the received signal ended."""
        return 128 + self._received if self._received is not None else 0

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # Whoever started this with a signal ignored (nohup) wants it ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: object) -> None:
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
