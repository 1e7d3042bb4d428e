"""What a worker is to do next, as its state machine says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Recover:
    """Recover the shards as this superblock has them; answer with what was found."""

    request: int
    clean: bool
    superblock: memoryview


@dataclass(frozen=True, slots=True)
class Serve:
    """Make way and replay; send on the entries of `consumed` types that have no key; answer when done."""

    request: int
    consumed: frozenset[int]


class Append(NamedTuple):
    """Append packed entries as one batch; answer where `request` is not 0."""

    request: int
    shard: int
    sequence: int
    records: int
    entries: memoryview
    credit: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete keys, as one batch; answer with a byte for each: was it there?"""

    request: int
    shard: int
    kind: int
    key_size: int
    keys: memoryview
    credit: int


class Flush(NamedTuple):
    """Flush everything; answer."""

    request: int


@dataclass(frozen=True, slots=True)
class Tidy:
    """Pack, or with `incarnate` incarnate, what comes next, from the start where it is to `begin`; answer whether there
    may be more to do."""

    request: int
    incarnate: bool
    begin: bool


@dataclass(frozen=True, slots=True)
class MakeSpace:
    """Free what is dead, however much must be copied for it where it is for deletions; answer whether that gave any."""

    request: int
    deletes: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Answer with the shards in figures."""

    request: int


@dataclass(frozen=True, slots=True)
class End:
    """Take nothing more, flush, answer with where the journals end."""

    request: int


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process."""


Instruction = Recover | Serve | Append | Delete | Flush | Tidy | MakeSpace | Figures | End | Exit
