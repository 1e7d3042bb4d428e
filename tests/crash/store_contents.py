"""What packed entries say, told by Python alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siltstone.format.constants import CLUSTER_SIZE, TYPE_DELETE
from siltstone.format.seal import seals_of
from siltstone.hash_store.merging import Merging
from siltstone.journal.log_reader import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from siltstone.shard.shard import Shard


def contents(history: Sequence[bytes]) -> dict[bytes, bytes]:
    """What the batches leave: key to payload."""
    found: dict[bytes, bytes] = {}
    for batch in history:
        at = 0
        while at < len(batch):
            entry = batch[at : at + batch[at]]
            if entry[1] == TYPE_DELETE:
                found.pop(entry[3:], None)
            else:
                found[entry[2:34]] = entry[2:]
            at += len(entry)
    return found


def starts_of(stream: bytes) -> Iterator[int]:
    """Where the entries of a packed stream start."""
    at = 0
    while at < len(stream):
        yield at
        at += stream[at]


def stored_in(shard: Shard) -> bytes:
    """The packed entries of all hash stores and journals of a shard, oldest first, as they lie on the medium."""
    superblock = shard.volume.superblock
    pieces: list[Any] = []
    for extent in superblock.hash_stores(shard.number):
        assert extent.part is not None
        source = Merging([[(shard.store.open_hash_store(extent), *extent.part)]])
        pieces += [bytes(chunk) for chunk in source.slice(extent.part.entries, extent.length)]
    for extent in superblock.journals(shard.number):
        journal = shard.journal
        end = journal.end if journal is not None and journal.extent.id == extent.id else extent.end
        assert end is not None
        reader = LogReader(shard.volume.backend, superblock.uuid, extent)
        for _first, data in reader.chunks(end.cluster):
            used = seals_of(data)["used"].tolist()
            pieces += [data[at * CLUSTER_SIZE :][:size] for at, size in enumerate(used)]
        pieces.append(reader.last_cluster(end)[0][: end.byte])
    return b"".join(pieces)
