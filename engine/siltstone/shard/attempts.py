"""What housekeeping does unattended: each thing rests for a while after it failed, and keeps no other from its turn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from siltstone.errors import ClosedError, DiskFullError, LogStoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)
#: seconds that a thing rests after it failed
_PAUSE_SECONDS: Final = 10.0


class Attempts:
    """Things that are tried from time to time, by name and shard.

    :param volume: whose they are: once it is poisoned nothing is tried any more
    """

    def __init__(self, volume: ShardVolume) -> None:
        self._volume = volume
        self._paused: dict[tuple[str, int], float] = {}

    def attempt(self, what: str, shard: int, now: float, action: Callable[[], object]) -> None:
        """Do what is due, unless it failed a moment ago."""
        if self._volume.poisoned is not None or now < self._paused.get((what, shard), now):
            return
        try:
            action()
        except ClosedError:
            # Whoever closes does not wait for it.
            return
        except (DiskFullError, LogStoreFullError):
            # Whoever puts until the journal is full is told; nothing is lost before.
            _log.debug("shard %d: no space: %s", shard, what, exc_info=True)
            self._paused[what, shard] = now + _PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - it runs unattended, and those who put get their own errors
            # Its text: a log record that keeps the error keeps frames, and with them the store.
            _log.warning("housekeeping: %s", repr(error))
            self._paused[what, shard] = now + _PAUSE_SECONDS
