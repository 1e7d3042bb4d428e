"""What a plugin imports, and the host that loads plugins."""

from siltstone.plugin.hookspecs import hookimpl
from siltstone.plugin.host import PluginHost
from siltstone.plugin.hosting import (
    Hosting,
    ShardFigures,
    ShardHost,
    ShardHostType,
    WorkerInfo,
    WorkerOptions,
)
from siltstone.plugin.types import BackendOptions, BackendType, Consumer, EntryType, ReplayBatch

__all__ = [
    "BackendOptions",
    "BackendType",
    "Consumer",
    "EntryType",
    "Hosting",
    "PluginHost",
    "ReplayBatch",
    "ShardFigures",
    "ShardHost",
    "ShardHostType",
    "WorkerInfo",
    "WorkerOptions",
    "hookimpl",
]
