"""The sealed format said again from docs/format.md, slowly, in plain Python: what the kernels are held against."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import xxhash

CLUSTER = 4096
BODY = 4064
NO_BOUNDARY = 0xFFFF
END, SKIP = 0x01, 0x03


def entry(kind: int, payload: bytes) -> bytes:
    return bytes([len(payload) + 2, kind]) + payload


def seed_of(uuid: bytes, extent: int, generation: int) -> int:
    return xxhash.xxh3_64_intdigest(uuid + struct.pack(">IQ", extent, generation))


def fits(offset: int, size: int) -> bool:
    """Whether an entry of `size` bytes may stand at `offset` of a sealed cluster."""
    return offset + size + 2 <= BODY


def filler_header(offset: int) -> dict[int, bytes]:
    """What closes a cluster whose entries end at `offset`: the two-byte headers, by the byte where they stand."""
    left = CLUSTER - offset
    if left > 254:
        return {offset: bytes([34, SKIP]), offset + 34: bytes([left - 34, END])}
    return {offset: bytes([left, END])}


def seal(
    body: bytes,
    *,
    seed: int,
    generation: int,
    index: int,
    used: int,
    committed: int,
    durable: tuple[int, int],
    sequence: int,
) -> bytes:
    """A whole cluster: 4064 bytes of body and their seal."""
    assert len(body) == BODY
    fields = struct.pack(">IIHHIH", generation & 0xFFFFFFFF, index, used, committed, *durable)
    head = body + fields + sequence.to_bytes(6, "big")
    return head + xxhash.xxh3_64_intdigest(head, seed=seed).to_bytes(8, "big")


def body_of(entries: bytes, *, closed: bool) -> bytes:
    """Entries, then what closes the cluster or filler, up to the seal."""
    body = bytearray(entries.ljust(BODY, b"\xff"))
    if closed:
        for at, header in filler_header(len(entries)).items():
            body[at : at + 2] = header
    return bytes(body)


@dataclass
class Model:
    """A journal's log: the entries of each cluster, where batches end, and what a flush covered."""

    seed: int
    generation: int
    tail: bytes = b""
    index: int = 0
    sequence: int = 0
    durable: tuple[int, int] = (0, 0)
    boundary: int | None = 0  # last batch boundary in the tail cluster
    closed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.boundary = len(self.tail)

    def append(self, batch: list[bytes]) -> list[int]:
        """Append a batch; the byte offset of each entry in the extent. `closed` gets the clusters that it closes."""
        offsets = []
        for one in batch:
            if not fits(len(self.tail), len(one)):
                self._close()
            offsets.append((self.index + 2) * CLUSTER + len(self.tail))
            self.tail += one
        self.sequence += 1
        self.boundary = len(self.tail)
        return offsets

    def _close(self) -> None:
        self.closed.append(self._sealed(body_of(self.tail, closed=True)))
        # A batch that ended exactly with the cluster ended at the start of the next one too.
        self.boundary = 0 if self.boundary == len(self.tail) else None
        self.tail = b""
        self.index += 1

    def tail_copy(self) -> bytes:
        """The tail as a slot holds it."""
        return self._sealed(body_of(self.tail, closed=False))

    def _sealed(self, body: bytes) -> bytes:
        return seal(
            body,
            seed=self.seed,
            generation=self.generation,
            index=self.index,
            used=len(self.tail),
            committed=NO_BOUNDARY if self.boundary is None else self.boundary,
            durable=self.durable,
            sequence=self.sequence,
        )
