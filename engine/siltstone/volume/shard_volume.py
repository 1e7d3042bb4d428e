"""What a shard needs of its volume: the volume itself, or whatever stands for it in another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from siltstone.errors import SiltstoneError
    from siltstone.format.superblock import Extent, Superblock
    from siltstone.volume.backend import Backend
    from siltstone.volume.ports import Ports


class ShardVolume(Protocol):
    """A volume as a shard sees it. Threads may share it."""

    @property
    def backend(self) -> Backend:
        """The medium, to read and write extents on."""

    @property
    def ports(self) -> Ports:
        """Clocks and chance."""

    @property
    def superblock(self) -> Superblock:
        """The superblock as it is, or was a moment ago where another process changes it; own extents are current."""

    @property
    def poisoned(self) -> SiltstoneError | None:
        """Why nothing is made durable any more, or None."""

    @property
    def flushes_failed(self) -> int:
        """How many flushes of the medium failed: each may have lost what this process had written before it."""

    def extent(self, number: int) -> Extent:
        """The extent with this id, as it is now."""

    def publish(self, change: Callable[[Superblock], Superblock], *, optional: bool = False) -> Superblock:
        """Apply `change` and write the result, durably; see :meth:`siltstone.volume.volume.Volume.publish`."""

    def flush(self, *, shared: bool = False) -> None:
        """Return once all that this process wrote is durable; see :meth:`siltstone.volume.volume.Volume.flush`."""

    def check_process(self) -> None:
        """StateError in a process that was forked from the one that opened the volume."""
