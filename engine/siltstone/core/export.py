"""Writes the journals and hash stores of a store as plain RFC images, one each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from siltstone.core.media import open_backend
from siltstone.errors import AlreadyExistsError, EntryError, NotFoundError
from siltstone.format.constants import CLUSTER_SIZE, ENTRY_SIZE_MIN, PLAIN_ENTRY_SIZE_MAX, TYPE_END, TYPE_NONE
from siltstone.format.kernels import split_entries
from siltstone.format.superblock import ACTIVE, KIND_HASH_STORE
from siltstone.hash_store.merging import Merging
from siltstone.index.types import KeyTypes
from siltstone.journal.blocks import EntryBlock, block_of
from siltstone.journal.log_reader import LogReader
from siltstone.journal.recovery import recover
from siltstone.log_store.older_views import OlderViews
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from siltstone.core.options import StoreOptions
    from siltstone.format.superblock import Extent
    from siltstone.plugin.host import PluginHost


@dataclass(frozen=True, slots=True)
class Exported:
    """One image that was written: the journal or hash store, its shard and order, how many entries and bytes."""

    path: Path
    journal: int
    shard: int
    order: int
    entries: int
    size: int


def export_volume(
    host: PluginHost, options: StoreOptions, directory: str | os.PathLike[str], journal: int | None
) -> list[Exported]:
    """Write each journal and part of a hash store, or the one with extent id `journal`, to a plain image in
    `directory`; flushed.

    Read one after another, a shard's hash stores first, each kind in the order of its names, they say what the
    store says. An image holds every entry in order, DELETE among them, and is as long as it needs. An image that
    exists is not overwritten. EntryError for an entry of 254 bytes, which the plain format does not have; damage
    raises and leaves no image of that journal.
    """
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    backend = open_backend(host, options, create=False)
    try:
        volume = Volume.open(backend, ports=options.ports)
        written = [*volume.superblock.hash_stores(), *volume.superblock.journals()]
        chosen = [extent for extent in written if journal in (None, extent.id)]
        if journal is not None and not chosen:
            known = ", ".join(str(extent.id) for extent in written)
            raise NotFoundError(f"{backend.url}: no journal {journal}; there are {known}", url=backend.url)
        keys = {number: kind.key for number, kind in host.entry_types.items() if kind.key is not None}
        types = KeyTypes(keys, volume.superblock.entry_types)
        return [_export(volume, extent, target, types) for extent in chosen]
    finally:
        backend.close()


def _export(volume: Volume, extent: Extent, directory: Path, types: KeyTypes) -> Exported:
    kind = extent.kind.replace("_", "-")
    part = "" if extent.part is None else f"-{extent.part.first:016x}"
    path = directory / f"shard-{extent.shard:04}-{kind}-{extent.order:08}{part}.img"
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise AlreadyExistsError(f"{path}: exists; it was not written", url=str(path)) from error
    try:
        with file:
            image = _PlainImage(file)
            for block in _blocks(volume, extent, types):
                image.add(block)
            image.finish()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
    except BaseException:
        path.unlink()
        raise
    return Exported(path, extent.id, extent.shard, extent.order, image.entries, size)


def _blocks(volume: Volume, extent: Extent, types: KeyTypes) -> Iterator[EntryBlock]:
    if extent.kind == KIND_HASH_STORE:
        view = OlderViews(volume.backend, volume.superblock.uuid, types).view(extent)
        assert extent.part is not None
        # What a merge has taken out of it already does not count.
        for chunk in Merging([[(view, *extent.part)]]).slice(extent.part.entries, extent.length):
            starts = np.empty(len(chunk) // ENTRY_SIZE_MIN, np.uint32)
            yield EntryBlock(chunk, starts[: split_entries(chunk, starts)], 0)
        return
    end = extent.end
    if extent.state == ACTIVE:
        end = recover(volume.backend, volume.superblock.uuid, extent, clean=volume.superblock.clean).end
    assert end is not None
    reader = LogReader(volume.backend, volume.superblock.uuid, extent)
    for first, data in reader.chunks(end.cluster):
        yield block_of(data, CLUSTER_SIZE, first)
    last, _slot = reader.last_cluster(end)
    if end.byte:
        yield block_of(last, end.byte, end.cluster)


class _PlainImage:
    """Lays entries into plain clusters as :class:`siltstone.journal.plain.PlainLog` does, as a stream."""

    def __init__(self, file: BinaryIO) -> None:
        self.entries = 0
        self._file = file
        self._pieces: list[bytes] = []
        self._used = 0

    def add(self, block: EntryBlock) -> None:
        """Append all entries of a block."""
        data = block.data.tobytes()
        sizes = block.sizes.tolist()
        for start, size in zip(block.starts.tolist(), sizes, strict=True):
            if size > PLAIN_ENTRY_SIZE_MAX:
                raise EntryError(
                    f"an entry of {size} bytes, type {data[start + 1]:#04x}: the plain format takes at most"
                    f" {PLAIN_ENTRY_SIZE_MAX}",
                    type=data[start + 1],
                    size=size,
                )
            if self._used + size + 2 >= CLUSTER_SIZE:
                left = CLUSTER_SIZE - self._used
                self._write(bytes((left, TYPE_END)))
            self._pieces.append(data[start : start + size])
            self._used += size
        self.entries += len(sizes)

    def finish(self) -> None:
        """Write the last cluster, and one erased cluster behind it, so that a reader finds the end."""
        if self._used:
            self._write(b"")
        self._file.write(bytes((TYPE_NONE,)) * CLUSTER_SIZE)

    def _write(self, closing: bytes) -> None:
        cluster = b"".join((*self._pieces, closing))
        self._file.write(cluster.ljust(CLUSTER_SIZE, b"\xff"))
        self._pieces = []
        self._used = 0
