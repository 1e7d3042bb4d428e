"""The outside world besides the medium, as a small port: clocks and chance. A test brings its own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Ports:
    """Where time and randomness come from.

    :param clock: seconds, monotonic
    :param wall_time: seconds since 1970
    :param random_bytes: n bytes nobody can guess
    """

    clock: Callable[[], float] = time.monotonic
    wall_time: Callable[[], float] = time.time
    random_bytes: Callable[[int], bytes] = os.urandom
