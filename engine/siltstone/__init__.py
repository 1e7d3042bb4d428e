"""Siltstone: append-only journals, and the dedup log store that they rebuild.

::

    import siltstone
    from siltstone import HashInfo

    with siltstone.open("store.silt") as store:
        store.put(HashInfo(hash=digest, physical_sect=8, first_logical_sect=64))
        store.flush()
        info = store.get(digest)
"""

from __future__ import annotations

from siltstone import errors
from siltstone.api import create, export, open, verify  # noqa: A004 - the front door's own name
from siltstone.core.export import Exported
from siltstone.core.info import StoreInfo
from siltstone.core.verify import Problem, VerifyReport
from siltstone.errors import *  # noqa: F403 - every error is part of the front door
from siltstone.journal.dump import DumpedEntry, dump_entries
from siltstone.journal.journal import Journal
from siltstone.journal.recovery import JournalRecovery
from siltstone.journal.space import BareSpace
from siltstone.plugin.hosting import WorkerInfo, WorkerOptions
from siltstone.records import HashInfo
from siltstone.shard.replaying import ReplayProgress
from siltstone.store import Store

__version__ = "0.1.0"

__all__ = [
    "BareSpace",
    "DumpedEntry",
    "Exported",
    "HashInfo",
    "Journal",
    "JournalRecovery",
    "Problem",
    "ReplayProgress",
    "Store",
    "StoreInfo",
    "VerifyReport",
    "WorkerInfo",
    "WorkerOptions",
    "__version__",
    "create",
    "dump_entries",
    "export",
    "open",
    "verify",
    *errors.__all__,
]
