"""What packed entries say, told by Python alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.format.constants import TYPE_DELETE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
