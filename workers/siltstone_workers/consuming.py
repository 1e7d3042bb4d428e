"""Hands the entries of replays in workers to the consumers, which are where the store was opened."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from siltstone.errors import PluginError
from siltstone_workers.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.log_store.log_store import Others


class Consuming:
    """Calls consumers, and knows how long they take.

    :param others: gives what a shard's entries go to
    :param deadline: how long one call may take [seconds]
    """

    def __init__(self, others: Callable[[int], Others | None], deadline: float) -> None:
        self._others = others
        self._deadline = deadline
        self._since: dict[int, float] = {}
        #: how often to look whether one takes too long [seconds]
        self.patience = max(deadline, 0.0) / 4

    def take(self, shard: int, entries: memoryview) -> None:
        """Give packed entries to their consumers; PluginError where one fails."""
        others = self._others(shard)
        if others is None:
            return
        thread = threading.get_ident()
        self._since[thread] = time.monotonic()
        try:
            others(split(entries))
        finally:
            del self._since[thread]

    def holds(self, thread: int | None) -> bool:
        """Whether a call in this thread takes longer than it may."""
        since = None if thread is None else self._since.get(thread)
        return since is not None and time.monotonic() - since > self._deadline

    def check(self) -> None:
        """PluginError where a call of a consumer takes longer than it may; it cannot be ended, only left."""
        now = time.monotonic()
        if any(now - since > self._deadline for since in list(self._since.values())):
            raise PluginError(f"a consumer did not return within {self._deadline:g} s")


def split(packed: memoryview) -> list[tuple[int, bytes]]:
    """The entries as (type, payload); ProtocolError where they are none."""
    found = []
    at = 0
    while at < len(packed):
        size = packed[at]
        if size < 2 or at + size > len(packed):
            raise ProtocolError(f"no entry at byte {at} of {len(packed)}", rule="whole entries", value=at)
        found.append((packed[at + 1], bytes(packed[at + 2 : at + size])))
        at += size
    return found
