"""Every entry size at every offset of a cluster, in both formats: does it fit, and what closes the cluster if not.

Two million pairs: 4096 offsets, entries of 2 to 254 bytes. The rule is said again here, over whole arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import rfc_reader
from cluster_model import entry, filler_header, seed_of

from siltstone.errors import EntryError
from siltstone.format.kernels import ClusterWriter, SealKey
from siltstone.journal.plain import PlainLog

CLUSTER = 4096
SIZES = range(2, 255)
KEY = SealKey(seed_of(bytes(16), 1, 1))

#: [offset, entry size] -> does it fit?
OFFSET, SIZE = np.ogrid[0:CLUSTER, 0:255]
SEALED_FITS = OFFSET + SIZE + 2 <= CLUSTER - 32
PLAIN_FITS = OFFSET + SIZE + 2 < CLUSTER


def entries_filling(size: int) -> bytes:
    """Whole entries of `size` bytes in all."""
    whole, rest = divmod(size, 254)
    if rest == 1:  # no entry has one byte
        return entry(2, bytes(252)) * (whole - 1) + entry(2, bytes(251)) + entry(2, b"")
    return entry(2, bytes(252)) * whole + (entry(2, bytes(rest - 2)) if rest else b"")


#: tails can end anywhere but behind one byte, and never further than 4062
SEALED_OFFSETS = [0, *range(2, 4063)]
STREAMS = {size: np.frombuffer(entry(0x10, bytes([size]) * (size - 2)), np.uint8) for size in SIZES}


def writer_at(offset: int) -> ClusterWriter:
    return ClusterWriter(KEY, 1, entries_filling(offset), 9, 0, (0, 0))


def test_a_sealed_entry_fits_where_the_rule_says():
    position = np.zeros(1, np.uint64)
    pairs = 0
    for offset in SEALED_OFFSETS:
        writer = writer_at(offset)
        fitting = SEALED_FITS[offset].tolist()
        here, next_cluster = (9 + 2) * CLUSTER + offset, (9 + 3) * CLUSTER
        for size, stream in STREAMS.items():
            closed = writer.stage(stream, position)
            assert (closed is None) == fitting[size], (offset, size)
            assert position[0] == (here if fitting[size] else next_cluster), (offset, size)
            pairs += 1
    assert pairs == len(SEALED_OFFSETS) * 253 > 1_000_000


def test_a_single_append_agrees_with_the_rule():
    # It has a path of its own through the kernel, without staging.
    entries = {size: bytes((size, 0x10)) + bytes(size - 2) for size in SIZES}
    for offset in SEALED_OFFSETS:
        tail = entries_filling(offset)
        fitting = SEALED_FITS[offset].tolist()
        for size, one in entries.items():
            writer = ClusterWriter(KEY, 1, tail, 9, 0, (0, 0))
            found = writer.append(one)
            assert found == ((9 + 2) * CLUSTER + offset if fitting[size] else -1), (offset, size)
            assert writer.used == offset + (size if fitting[size] else 0)


@pytest.mark.parametrize("offset", [1, *range(4063, 4097)])
def test_no_sealed_cluster_ends_anywhere_else(offset):
    tail = bytes([1]) if offset == 1 else entries_filling(offset)
    with pytest.raises((ValueError, EntryError)):
        ClusterWriter(KEY, 1, tail, 0, 0, (0, 0))


def test_what_closes_a_sealed_cluster_covers_the_rest_of_it():
    position = np.zeros(1, np.uint64)
    closed_pairs = 0
    for offset in SEALED_OFFSETS:
        tail = entries_filling(offset)
        writer = writer_at(offset)
        for size in np.flatnonzero(~SEALED_FITS[offset, 2:]) + 2:
            cluster = bytes(writer.stage(STREAMS[int(size)], position))
            closed_pairs += 1
            assert cluster[:offset] == tail
            headers = filler_header(offset)
            rest = bytearray(b"\xff" * (4064 - offset))
            for at, header in headers.items():
                rest[at - offset : at - offset + 2] = header
            assert cluster[offset:4064] == rest
            end = max(headers)
            assert cluster[end + 1] == 0x01
            assert 34 <= cluster[end] <= 254
            assert end + cluster[end] == CLUSTER
            if len(headers) == 2:
                assert CLUSTER - offset > 254
                assert cluster[offset : offset + 2] == bytes([34, 0x03])
    assert closed_pairs == int((~SEALED_FITS[SEALED_OFFSETS, 2:]).sum()) > 30_000


def test_a_closed_cluster_is_the_rfcs():
    position = np.zeros(1, np.uint64)
    for offset in SEALED_OFFSETS:
        if SEALED_FITS[offset, 254]:
            continue
        writer = writer_at(offset)  # it owns what it stages
        cluster = bytes(writer.stage(STREAMS[254], position))
        found = b"".join(
            entry(kind, payload) for _at, kind, payload in rfc_reader.walk(cluster) if kind not in (1, 3)
        )
        assert found == entries_filling(offset)


# ---- plain


@dataclass
class OneJournal:
    """Two clusters in memory."""

    image: bytearray
    url = "memory:pairs"
    read_only = False

    def read(self, offset: int, length: int, *, fresh: bool = False) -> bytes:
        return bytes(self.image[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.image[offset : offset + len(data)] = data

    def flush(self) -> None: ...


def test_a_plain_entry_fits_where_the_rfc_says():
    medium = OneJournal(bytearray(b"\xff" * CLUSTER * 2))
    log = PlainLog(medium, 0, CLUSTER * 2)
    payloads = {size: bytes(size - 2) for size in SIZES if size <= 253}
    pairs = 0
    for offset in range(CLUSTER - 1):
        fitting = PLAIN_FITS[offset].tolist()
        for size, payload in payloads.items():
            log.resume(offset)
            at = log.append(0x10, payload)
            assert at == (offset if fitting[size] else CLUSTER), (offset, size)
            if not fitting[size]:
                # The cluster that was left went to the medium, closed by an END that jumps to the next.
                assert medium.image[offset : offset + 2] == bytes([CLUSTER - offset, 0x01]), (offset, size)
                assert medium.image[offset + 2 : CLUSTER] == b"\xff" * (CLUSTER - offset - 2)
                medium.image[offset : offset + 2] = b"\xff\xff"
            pairs += 1
    assert pairs == (CLUSTER - 1) * 252 > 1_000_000


def test_no_end_of_256_bytes_is_ever_due():
    # Hazard 1 of the RFC's code: such an END has the size byte 0, and a walk stops there without a word.
    closing = [CLUSTER - offset for offset in range(CLUSTER - 1) if not PLAIN_FITS[offset, 253]]
    assert max(closing) == 255
    assert not PLAIN_FITS[CLUSTER - 256, 254]


def test_a_plain_entry_of_254_bytes_is_refused():
    log = PlainLog(OneJournal(bytearray(b"\xff" * CLUSTER * 2)), 0, CLUSTER * 2)
    with pytest.raises(EntryError, match="254"):
        log.append(0x10, bytes(252))
    assert log.position == 0


def test_a_plain_journal_does_not_go_on_where_no_header_fits():
    log = PlainLog(OneJournal(bytearray(b"\xff" * CLUSTER * 2)), 0, CLUSTER * 2)
    with pytest.raises(EntryError):
        log.resume(CLUSTER - 1)
