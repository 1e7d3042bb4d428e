"""Reads the entries of a journal image as it is: plain, or the log clusters of a sealed one. For people who look."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siltstone.errors import DamageError, MediumError, NotFoundError, StateError
from siltstone.format.constants import (
    CLUSTER_SIZE,
    ENTRY_HEADER_SIZE,
    SLOT_CLUSTERS,
    TYPE_END,
    TYPE_SKIP,
    USED_MAX,
)
from siltstone.format.seal import parse_seal
from siltstone.journal.plain import parse_entry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import BinaryIO

_CHUNK_CLUSTERS = 256


@dataclass(frozen=True, slots=True)
class DumpedEntry:
    """One entry as it stands in an image; `offset` in bytes from where the dump began, `size` with its header."""

    offset: int
    size: int
    type: int
    payload: bytes


def dump_entries(
    path: str | os.PathLike[str],
    *,
    offset: int = 0,
    size: int | None = None,
    format: Literal["plain", "sealed"] = "plain",  # noqa: A002
) -> Iterator[DumpedEntry]:
    """The entries of a journal in a file or device, in order, END and filler left out. Needs no volume around it.

    :param offset: where the journal starts [bytes]; for "sealed" that is where its extent does
    :param size: its length [bytes]; None: to the end of the file
    :param format: "plain" walks clusters from the start. "sealed" shows the log clusters that bear the right
        index, then the newer tail slot that follows them, whose entries are shown where the slot is. Nothing is
        verified: a seal is bound to its volume, and `siltstone verify` checks it there.

    Raises DamageError where an entry cannot be, after those before it; and at the end where something is
    written behind the end of a plain journal.
    """
    image = Path(path)
    if not image.exists():
        raise NotFoundError(f"{image}: does not exist", url=str(image))
    if not image.is_file() and not image.is_block_device():
        raise StateError(f"{image}: is neither a file nor a block device", what=str(image), state="special")
    with image.open("rb") as file:
        file.seek(0, os.SEEK_END)
        whole = file.tell()
        length = max(0, whole - offset) if size is None else size
        if offset < 0 or length < 0 or offset + length > whole:
            raise MediumError(
                f"{image}: {length} bytes at {offset} are not in {whole}",
                url=str(image),
                operation="read",
                offset=offset,
                length=length,
            )
        yield from (_plain if format == "plain" else _sealed)(file, offset, length)


def _clusters(file: BinaryIO, offset: int, length: int, first: int = 0) -> Iterator[tuple[int, memoryview]]:
    """Each cluster from number `first` on with its offset in the journal; the last may be short."""
    for start in range(first * CLUSTER_SIZE, length, _CHUNK_CLUSTERS * CLUSTER_SIZE):
        file.seek(offset + start)
        data = memoryview(file.read(min(_CHUNK_CLUSTERS * CLUSTER_SIZE, length - start)))
        for at in range(0, len(data), CLUSTER_SIZE):
            yield start + at, data[at : at + CLUSTER_SIZE]


def _plain(file: BinaryIO, offset: int, length: int) -> Iterator[DumpedEntry]:
    end: int | None = None
    for base, cluster in _clusters(file, offset, length):
        if end is None:
            end = yield from _entries(cluster, base, len(cluster))
            if end is None:
                continue
            cluster, base = cluster[end - base :], end
        if bytes(cluster).count(0xFF) != len(cluster):
            found = base + next(place for place, byte in enumerate(cluster) if byte != 0xFF)
            raise DamageError(
                f"the journal ends at offset {end}, but something is written behind it, at offset {found}: entries"
                " are missing",
                offset=end,
            )


def _sealed(file: BinaryIO, offset: int, length: int) -> Iterator[DumpedEntry]:
    count = 0
    for base, cluster in _clusters(file, offset, length, SLOT_CLUSTERS):
        if len(cluster) < CLUSTER_SIZE or not _is_log_cluster(cluster, count):
            break
        yield from _entries(cluster, base, parse_seal(cluster).used)
        count += 1
    slots = [
        (parse_seal(cluster).used, base, cluster)
        for base, cluster in _clusters(file, offset, min(length, SLOT_CLUSTERS * CLUSTER_SIZE))
        if len(cluster) == CLUSTER_SIZE and _is_log_cluster(cluster, count)
    ]
    if slots:
        used, base, cluster = max(slots, key=lambda slot: slot[:2])
        yield from _entries(cluster, base, used)


def _is_log_cluster(cluster: memoryview, index: int) -> bool:
    """Whether a seal of log cluster `index` may be here: an empty tail, of which nothing is seen, counts as none."""
    seal = parse_seal(cluster)
    return (
        seal.index == index
        and 0 < seal.used <= USED_MAX
        and (seal.committed <= seal.used or seal.boundary is None)
    )


def _entries(cluster: memoryview, base: int, used: int) -> Generator[DumpedEntry, None, int | None]:
    """The entries in the first `used` bytes of a cluster; returns where the journal ends, if it does in here."""
    padded = memoryview(bytes(cluster).ljust(CLUSTER_SIZE, b"\xff"))
    at = 0
    while at < used:
        if used - at < ENTRY_HEADER_SIZE:
            raise DamageError(f"no entry at offset {base + at}: the image ends in it", offset=base + at)
        entry = parse_entry(padded, base + at)
        if entry is None:
            return base + at
        if entry.type not in (TYPE_END, TYPE_SKIP):
            yield DumpedEntry(base + at, entry.size, entry.type, entry.payload)
        at += entry.size
    return None
