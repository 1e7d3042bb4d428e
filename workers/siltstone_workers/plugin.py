"""The plugin by which the engine meets worker processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.plugin import hookimpl
from siltstone.plugin.hosting import WORKER_PROCESSES, ShardHostType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from siltstone.plugin.hosting import Hosting, Joining, OpenShards, ShardHost


def open_host(hosting: Hosting) -> ShardHost:
    """Start the workers of a store."""
    from siltstone_workers.host import ProcessHost

    return ProcessHost(hosting)


def join_host(joining: Joining) -> OpenShards | None:
    """Look into what the workers of another process serve."""
    from siltstone_workers.joining import join

    return join(joining)


@hookimpl
def siltstone_shard_hosts() -> Iterable[ShardHostType]:
    """Yield the host for ``workers`` of 1 and more."""
    yield ShardHostType(name=WORKER_PROCESSES, open=open_host, join=join_host)
