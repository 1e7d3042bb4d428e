"""Siltstone as peers of the comparison harness: see README.md beside this.

python peers_bench.py --adapters benchmarks/siltstone_adapter.py --peer siltstone,lmdb --workload W1,W3
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
from peers_bench import JournalPeer, KVPeer, register

import siltstone
from siltstone import HashInfo, Journal, JournalFullError
from siltstone.format.constants import JOURNAL_SIZE_MAX, TYPE_HASH
from siltstone.journal.space import BareSpace
from siltstone.plugin import BackendOptions, PluginHost

if TYPE_CHECKING:
    from pathlib import Path

SECTORS = struct.Struct(">QQ")
#: what the harness takes for the type of an entry; to the format it is END
HARNESS_TYPE = 1


@register
class Siltstone(KVPeer):
    """The store, through its front door, in the caller's process."""

    name = "siltstone"
    distributions = ("siltstone",)
    form = "array"
    note = "siltstone.open(..., workers=0), a file volume"
    workers: int | None = 0

    def open(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.store = siltstone.open(path / "store.silt", workers=self.workers)
        get = self.store.get
        pack = SECTORS.pack

        def get_one(key: bytes) -> bytes | None:
            info = get(key)
            return None if info is None else pack(info.physical_sect, info.first_logical_sect)

        self.get_one = get_one

    def put_many(self, keys: np.ndarray, values: np.ndarray) -> None:
        sectors = values.view(">u8").astype(np.uint64)
        self.store.put_many(keys, sectors[:, 0], sectors[:, 1])

    def put_one(self, key: bytes, value: bytes) -> None:
        self.store.put(HashInfo(key, *SECTORS.unpack(value)))
        self.store.flush()

    def commit(self) -> None:
        self.store.flush()

    def get_many(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, physical_sects, first_logical_sects = self.store.get_many(keys)
        values = np.empty((len(keys), 2), ">u8")
        values[:, 0] = physical_sects
        values[:, 1] = first_logical_sects
        return found, values.view(np.uint8).reshape(-1, SECTORS.size)

    def close(self) -> None:
        self.store.close()


@register
class SiltstoneWorkers(Siltstone):
    """The store with a worker process for each processor, as it opens by itself."""

    name = "siltstone-workers"
    note = "siltstone.open(...), a file volume"
    workers = None


@register
class SiltstoneJournal(JournalPeer):
    """Sealed journals of 64 MiB, one after another, in one file; a second file says where they are."""

    name = "siltstone-journal"
    distributions = ("siltstone",)
    form = "array"
    note = "siltstone.Journal, sealed, every cluster's checksum verified in the scan"

    def open(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.catalogue = path / "journals.json"
        kind, rest = PluginHost.load().resolve(path / "journals.bin")
        self.backend = kind.open(rest, BackendOptions(create=True))
        self.backend.lock()
        self.backend.publish()
        self.space = BareSpace(self.backend)
        known = json.loads(self.catalogue.read_text()) if self.catalogue.exists() else []
        self.dumps = [bytes.fromhex(dump) for dump, _ in known]
        self.generations = [generation for _, generation in known]
        self.journal = None

    def append_many(self, entries: np.ndarray) -> None:
        stream = entries.copy()
        stream["type"] = TYPE_HASH
        packed = stream.view(np.uint8)
        if self.journal is None:
            self.start_next()
        try:
            self.journal.append_many(packed)
        except JournalFullError:
            self.journal.stop()
            self.start_next()
            self.journal.append_many(packed)

    def start_next(self) -> None:
        self.journal = Journal(self.space)
        self.journal.allocate(JOURNAL_SIZE_MAX)
        self.dumps.append(self.journal.dump())
        self.generations.append(self.journal.extent.generation)
        rows = [
            (dump.hex(), generation) for dump, generation in zip(self.dumps, self.generations, strict=True)
        ]
        self.catalogue.write_text(json.dumps(rows))

    def commit(self) -> None:
        self.journal.flush()

    def scan(self) -> tuple[int, bytes]:
        count, last = 0, b""
        for dump, generation in zip(self.dumps, self.generations, strict=True):
            with Journal(self.space) as journal:
                journal.parse(dump)
                journal.recover(generation)
                for block in journal.walk_blocks():
                    assert (block.types == TYPE_HASH).all()
                    count += len(block)
                    payload = block.entry(len(block) - 1).payload
                    last = bytes((len(payload) + 2, HARNESS_TYPE)) + payload
        return count, last

    def close(self) -> None:
        self.backend.close()
