"""Siltstone as peers of the comparison harness: see README.md beside this.

python peers_bench.py --adapters benchmarks/siltstone_adapter.py --peer siltstone,lmdb --workload W1,W3
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from peers_bench import KVPeer, register

import siltstone
from siltstone import HashInfo

if TYPE_CHECKING:
    from pathlib import Path

SECTORS = struct.Struct(">QQ")


@register
class Siltstone(KVPeer):
    """The store, through its front door, in the caller's process."""

    name = "siltstone"
    distributions = ("siltstone",)
    form = "array"
    note = "siltstone.open(..., workers=0), a file volume"

    def open(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.store = siltstone.open(path / "store.silt", workers=0)
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
