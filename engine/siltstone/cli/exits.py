"""The exit statuses of the command line."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT_DAMAGE", "EXIT_ERROR", "EXIT_FINE", "EXIT_INTERRUPTED", "EXIT_PIPE", "EXIT_UNREADABLE"]

EXIT_FINE: Final = 0
#: `dedup`: some files could not be read; all others were
EXIT_UNREADABLE: Final = 1
#: `verify`, `journal dump`: read, and found damaged
EXIT_DAMAGE: Final = 1
#: wrong usage, or a store, device or file that cannot be worked with
EXIT_ERROR: Final = 2
#: ended by Ctrl-C
EXIT_INTERRUPTED: Final = 130
#: whoever read the output closed it
EXIT_PIPE: Final = 141
