"""Reads the entries of a journal image as it is: plain, or the log clusters of a sealed one. For people who look."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siltstone.errors import DamageError, MediumError, NotFoundError, StateError
from siltstone.format.constants import CLUSTER_SIZE, ENTRY_HEADER_SIZE, TYPE_END, TYPE_NONE, TYPE_SKIP
from siltstone.journal.plain import parse_entry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

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
    :param format: "plain" walks clusters from the start; "sealed" starts behind the two tail slots and shows
        what closed clusters hold, unverified, since a seal is bound to its volume (`siltstone verify` checks)

    Raises DamageError where an entry cannot be, after those before it; and at the end where something is
    written behind the end of a plain journal.
    """
    image = Path(path)
    if not image.exists():
        raise NotFoundError(f"{image}: does not exist", url=str(image))
    if image.is_dir():
        raise StateError(f"{image}: is a directory", what=str(image), state="directory")
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
        first = 0 if format == "plain" else 2
        end: int | None = None
        for start in range(first * CLUSTER_SIZE, length, _CHUNK_CLUSTERS * CLUSTER_SIZE):
            file.seek(offset + start)
            data = file.read(min(_CHUNK_CLUSTERS * CLUSTER_SIZE, length - start))
            for at in range(0, len(data), CLUSTER_SIZE):
                cluster = memoryview(data)[at : at + CLUSTER_SIZE]
                if end is not None:
                    _check_erased(cluster, start + at, end, format)
                    continue
                end = yield from _cluster(cluster, start + at)
                if end is not None:
                    _check_erased(cluster[end - start - at :], end, end, format)


def _cluster(cluster: memoryview, base: int) -> Generator[DumpedEntry, None, int | None]:
    """The entries of one cluster; returns where the journal ends, if it does in here."""
    at = 0
    while at < len(cluster):
        if len(cluster) - at < ENTRY_HEADER_SIZE:
            raise DamageError(f"no entry at offset {base + at}: the image ends in it", offset=base + at)
        if cluster[at + 1] == TYPE_NONE:
            return base + at
        padded = (
            cluster
            if len(cluster) == CLUSTER_SIZE
            else memoryview(bytes(cluster).ljust(CLUSTER_SIZE, b"\xff"))
        )
        entry = parse_entry(padded, base + at)
        assert entry is not None
        if entry.type not in (TYPE_END, TYPE_SKIP):
            yield DumpedEntry(base + at, entry.size, entry.type, entry.payload)
        at += entry.size
    return None


def _check_erased(cluster: memoryview, base: int, end: int, format: str) -> None:  # noqa: A002
    """Behind the end of a plain journal nothing may be written; a sealed one may have been longer in a life before."""
    if format == "plain" and bytes(cluster).count(0xFF) != len(cluster):
        found = base + next(place for place, byte in enumerate(cluster) if byte != 0xFF)
        raise DamageError(
            f"the journal ends at offset {end}, but something is written behind it, at offset {found}: entries are"
            " missing",
            offset=end,
        )
