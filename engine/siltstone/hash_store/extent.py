"""What an extent of a hash store holds and where: its header, the shape of its filter, the space to take for it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final, Self

from siltstone.errors import VersionError
from siltstone.format.constants import BODY_SIZE, ENTRY_SIZE_MAX

MAGIC: Final = b"SILTHASH"
#: what this release writes, and the lowest release of the format that can read it
VERSION: Final = 1
READABLE_FROM: Final = 1

#: cells are counted in u32 in compiled code, and so many records need fewer than there are
RECORDS_MAX: Final = 1 << 31
CELLS_MAX: Final = (1 << 32) - 1
CLUSTERS_MAX: Final = 1 << 27
FENCES_A_PAGE: Final = BODY_SIZE // 8
#: the smallest entry with a key has three bytes, and a tag
RECORDS_A_PAGE_MAX: Final = BODY_SIZE // 4

SEGMENT_BITS_MIN: Final = 3
SEGMENT_BITS_MAX: Final = 18
ARITY: Final = 4

_HEADER: Final = struct.Struct(">8sIIQQQIIIIIIIQIIQ")
HEADER_SIZE: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class FilterShape:
    """Size of a binary fuse filter of 4 cells of one byte a hash (Graf and Lemire 2022).

    :param segment_bits: a segment has 2 to this many cells
    :param segments: in which the first of the four cells of a hash may lie; three more follow
    """

    segment_bits: int
    segments: int

    @classmethod
    def of(cls, hashes: int) -> Self:
        """The shape for so many different hashes; it never shrinks as they become more."""
        count = max(hashes, 2)
        # The constants are the paper's, found by experiment, for the smallest array that can nearly always be filled.
        bits = math.floor(math.log(count) / math.log(2.91) - 0.5)
        bits = min(max(bits, SEGMENT_BITS_MIN), SEGMENT_BITS_MAX)
        factor = max(1.075, 0.77 + 0.305 * math.log(600_000) / math.log(count))
        return cls(bits, max(math.ceil(count * factor / (1 << bits)) - (ARITY - 1), 1))

    @property
    def cells(self) -> int:
        """Bytes of the filter."""
        return (self.segments + ARITY - 1) << self.segment_bits


@dataclass(frozen=True, slots=True)
class HashStoreHeader:
    """What the first page of a hash store says; docs/format.md has its bytes.

    :param entries: records and tombstones
    :param tombstones: entries that are deletions
    :param entry_bytes: of all entries
    :param largest_entry: [bytes], 0 where there is none
    :param record_pages: pages with entries
    :param hashes: different ones among the entries, all of them in the filter
    :param filter_seed: with which the filter was found
    :param filter_shape: its size
    """

    entries: int
    tombstones: int
    entry_bytes: int
    largest_entry: int
    record_pages: int
    hashes: int
    filter_seed: int
    filter_shape: FilterShape

    @property
    def first_record_page(self) -> int:
        """Cluster of the extent."""
        return 1

    @property
    def first_filter_page(self) -> int:
        """Cluster of the extent."""
        return self.first_record_page + self.record_pages

    @property
    def filter_pages(self) -> int:
        """How many there are, at least one."""
        return -(-self.filter_shape.cells // BODY_SIZE)

    @property
    def first_fence_page(self) -> int:
        """Cluster of the extent."""
        return self.first_filter_page + self.filter_pages

    @property
    def fence_pages(self) -> int:
        """How many there are."""
        return -(-self.record_pages // FENCES_A_PAGE)

    @property
    def clusters(self) -> int:
        """Clusters of the extent that are in use, this page included."""
        return self.first_fence_page + self.fence_pages

    def to_bytes(self) -> bytes:
        """The first HEADER_SIZE bytes of the header page."""
        return _HEADER.pack(
            MAGIC,
            VERSION,
            READABLE_FROM,
            self.entries,
            self.tombstones,
            self.entry_bytes,
            self.largest_entry,
            self.first_record_page,
            self.record_pages,
            self.first_filter_page,
            self.filter_pages,
            self.first_fence_page,
            self.fence_pages,
            self.filter_seed,
            self.filter_shape.segment_bits,
            self.filter_shape.segments,
            self.hashes,
        )

    @classmethod
    def parse(cls, page: bytes, clusters: int) -> HashStoreHeader:
        """The header in a page whose seal was verified, of an extent of so many clusters.

        ValueError says what cannot be true; VersionError names a format that is newer than this release.
        """
        (
            magic,
            version,
            readable_from,
            entries,
            tombstones,
            entry_bytes,
            largest_entry,
            first_record_page,
            record_pages,
            first_filter_page,
            filter_pages,
            first_fence_page,
            fence_pages,
            filter_seed,
            segment_bits,
            segments,
            hashes,
        ) = _HEADER.unpack_from(page)
        if magic != MAGIC:
            raise ValueError(f"no hash store: magic {magic!r}")
        if readable_from > VERSION:
            raise VersionError(
                f"a hash store of format {version}, readable from format {readable_from} on; known is {VERSION}",
                version=version,
                known=VERSION,
            )
        if not SEGMENT_BITS_MIN <= segment_bits <= SEGMENT_BITS_MAX or not segments:
            raise ValueError(f"a filter of {segments} segments of 2^{segment_bits} cells")
        header = cls(
            entries,
            tombstones,
            entry_bytes,
            largest_entry,
            record_pages,
            hashes,
            filter_seed,
            FilterShape(segment_bits, segments),
        )
        parts = first_record_page, first_filter_page, filter_pages, first_fence_page, fence_pages
        if parts != (
            header.first_record_page,
            header.first_filter_page,
            header.filter_pages,
            header.first_fence_page,
            header.fence_pages,
        ):
            raise ValueError(f"its parts lie at {parts}, which does not go with {record_pages} record pages")
        if header.clusters > min(clusters, CLUSTERS_MAX) or header.filter_shape.cells > CELLS_MAX:
            raise ValueError(f"it takes {header.clusters} clusters of an extent of {clusters}")
        header._check_counts()
        return header

    def _check_counts(self) -> None:
        if not (
            self.record_pages <= self.entries <= self.record_pages * RECORDS_A_PAGE_MAX
            and self.tombstones <= self.entries
            and bool(self.entries) <= self.hashes <= self.entries
            and 3 * self.entries <= self.entry_bytes <= self.largest_entry * self.entries
            and self.largest_entry <= ENTRY_SIZE_MAX
        ):
            raise ValueError(
                f"{self.entries} entries, {self.tombstones} of them tombstones, with {self.hashes} hashes and"
                f" {self.entry_bytes} bytes, the largest of {self.largest_entry}, in {self.record_pages} pages"
            )


def plan(entries: int, entry_bytes: int, largest_entry: int = ENTRY_SIZE_MAX) -> int:
    """Clusters that a hash store needs at most, header, filter and fences included.

    Exact where all entries have the size of the largest. Sums over several hash stores or journals plan their
    merge: what is left out of it only makes it smaller.

    :param entries: how many at most, tombstones included
    :param entry_bytes: of all of them at most
    :param largest_entry: no entry is larger [bytes]
    """
    if not 0 <= entries <= RECORDS_MAX or not 2 <= largest_entry <= ENTRY_SIZE_MAX:
        raise ValueError(f"{entries} entries of at most {largest_entry} bytes")
    # A page is left when the next entry and its tag do not fit: so it holds at least as many as the largest would
    # fill it with, and has at most the largest's size free. Either may be the better bound.
    by_count = -(-entries // (BODY_SIZE // (largest_entry + 1)))
    by_bytes = -(-(entry_bytes + entries) // (BODY_SIZE - largest_entry))
    pages = min(by_count, by_bytes)
    return HashStoreHeader(
        entries, 0, entry_bytes, largest_entry, pages, entries, 0, FilterShape.of(entries)
    ).clusters
