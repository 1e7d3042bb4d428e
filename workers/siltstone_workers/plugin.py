"""The plugin by which the engine meets worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.plugin import hookimpl
from siltstone.plugin.hosting import WORKER_PROCESSES, ShardHostType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siltstone.plugin.hosting import Hosting, ShardHost


def open_host(hosting: Hosting) -> ShardHost:
    """Start the workers of a store."""
    from siltstone_workers.host import ProcessHost

    return ProcessHost(hosting)


@hookimpl
def siltstone_shard_hosts() -> Iterable[ShardHostType]:
    """Yield the host for ``workers`` of 1 and more."""
    yield ShardHostType(name=WORKER_PROCESSES, open=open_host)
