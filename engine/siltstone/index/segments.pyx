"""The slots of an index as bytes: taken out for a checkpoint, and brought back from one, segment by segment.

A segment that is to be brought back *waits*: its sequence number is odd, as in the middle of a change, so that no
reader takes what is not there for an answer.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from siltstone.index.layout cimport (
    ABI, BUCKET, JOURNALS, OFFSET_BITS, PLACES, Segment, begin_change, bucket, end_change, load_half)
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.search cimport fits

cdef extern from "format/xxh3.h" nogil:
    void xxh3_secret_of(uint64_t seed, uint8_t *secret)
    uint64_t xxh3_long(const uint8_t *data, size_t length, const uint8_t *secret)

#: rises with every change of what lies in the memory of an index, or where
LAYOUT = ABI
#: bytes of a bucket
BUCKET_BYTES = BUCKET * 8


def shape(MappedIndex index not None):
    """(buckets, slots) of each segment, as two (n,) uint32; nothing may change the index meanwhile."""
    cdef Py_ssize_t count = index.table.segment_mask + 1, i
    found, named = np.empty(count, np.uint32), np.empty(count, np.uint32)
    cdef uint32_t[::1] buckets = found, slots = named
    for i in range(count):
        buckets[i], slots[i] = index.table.segments[i].buckets, index.table.segments[i].slots
    return found, named


def copy_out(MappedIndex index not None, const uint64_t[::1] starts not None, uint8_t[::1] out not None):
    """Copy the buckets of each segment that has slots to byte starts[i] of `out`; nothing may change meanwhile."""
    cdef Py_ssize_t count = index.table.segment_mask + 1, i
    cdef Segment *segment
    cdef uint64_t size
    if starts.shape[0] != count:
        raise ValueError(f"{starts.shape[0]} places for {count} segments")
    with nogil:
        for i in range(count):
            segment = &index.table.segments[i]
            size = <uint64_t>segment.buckets * (BUCKET * 8)
            if segment.slots and starts[i] + size <= <uint64_t>out.shape[0]:
                memcpy(&out[starts[i]], bucket(&index.table, i, segment.window, 0), size)


def checksums(const uint8_t[::1] data not None, const uint64_t[::1] starts not None, const uint64_t[::1] sizes not None,
              uint64_t seed):
    """XXH3 under `seed` of each part of `data`, 0 for one without bytes, as (n,) uint64. Parts have 0 or > 240 bytes."""
    cdef uint8_t secret[192]
    cdef Py_ssize_t i, count = starts.shape[0]
    sums = np.zeros(count, np.uint64)
    cdef uint64_t[::1] found = sums
    xxh3_secret_of(seed, secret)
    for i in range(count):
        if sizes[i] and (sizes[i] <= 240 or starts[i] + sizes[i] > <uint64_t>data.shape[0]):
            raise ValueError(f"a part of {sizes[i]} bytes at {starts[i]} of {data.shape[0]}")
    with nogil:
        for i in range(count):
            if sizes[i]:
                found[i] = xxh3_long(&data[starts[i]], sizes[i], secret)
    return sums


def counts(MappedIndex index not None, int journal):
    """(slots that name it, entries, deletions, entries without a key) of a journal."""
    index.check_journal(journal)
    tally = index.table.tallies[journal]
    return index.table.journals[journal].live, tally.entries, tally.deletions, tally.keyless


def set_counts(MappedIndex index not None, int journal, uint32_t live, uint32_t entries, uint32_t deletions,
               uint32_t keyless):
    """Say what :func:`counts` said of a journal that was just attached."""
    index.check_journal(journal)
    index.table.journals[journal].live = live
    index.table.tallies[journal].entries = entries
    index.table.tallies[journal].deletions = deletions
    index.table.tallies[journal].keyless = keyless


def expect(MappedIndex index not None, const uint32_t[::1] buckets not None, const uint32_t[::1] slots not None,
           uint64_t records, loader not None):
    """Let the segments of an index that holds nothing yet wait for their slots.

    :param loader: gets the index, and the number of a segment that somebody needs or -1 for all that wait, and
        brings them back; called by any thread
    """
    cdef Py_ssize_t count = index.table.segment_mask + 1, i
    cdef Segment *segment
    if buckets.shape[0] != count or slots.shape[0] != count:
        raise ValueError(f"{buckets.shape[0]} segments, not {count}")
    if index.table.header.slots:
        raise ValueError("the index holds something")
    for i in range(count):
        if not fits(&index.table, buckets[i]):
            raise ValueError(f"segment {i} of {buckets[i]} buckets does not fit its window")
    index.loader = loader
    for i in range(count):
        segment = &index.table.segments[i]
        begin_change(&segment.sequence)
        index.table.header.bytes += (<uint64_t>buckets[i] - segment.buckets) * (BUCKET * 8)
        index.table.header.slots += slots[i]
        segment.buckets, segment.slots, segment.window = buckets[i], slots[i], 0
        if slots[i]:
            segment.waits = 1
            index.waiting += 1
        else:
            end_change(&segment.sequence)
    index.table.header.records = records


def waits(MappedIndex index not None, Py_ssize_t number):
    """Whether a segment still waits for its slots."""
    return 0 <= number <= <Py_ssize_t>index.table.segment_mask and load_half(&index.table.segments[number].waits) != 0


cdef bint names_only(const uint64_t *slots, uint64_t count, uint64_t named, const uint8_t *journals) noexcept nogil:
    """Whether just `named` of the slots name something, in no other than these journals."""
    cdef uint64_t i, found = 0
    for i in range(count):
        if slots[i]:
            found += 1
            if not journals[(slots[i] & PLACES) >> OFFSET_BITS]:
                return False
    return found == named


def bring_back(MappedIndex index not None, Py_ssize_t number, const uint8_t[::1] data not None, uint64_t checksum,
               uint64_t seed, const uint8_t[::1] journals not None):
    """Give a segment that waits its slots, if they are what the checksum says; whether they are.

    `journals[n]` is 1 where a slot may name journal number n. One thread at a time.
    """
    cdef uint8_t secret[192]
    cdef Segment *segment = &index.table.segments[number]
    cdef uint64_t size = <uint64_t>segment.buckets * (BUCKET * 8)
    cdef bint whole
    if not waits(index, number) or journals.shape[0] != JOURNALS:
        raise ValueError(f"segment {number} does not wait")
    if <uint64_t>data.shape[0] != size or size <= 240:
        return False
    xxh3_secret_of(seed, secret)
    with nogil:
        # Before a reader can see any of it.
        whole = (xxh3_long(&data[0], size, secret) == checksum
                 and names_only(<const uint64_t *>&data[0], size // 8, segment.slots, &journals[0]))
        if whole:
            memcpy(bucket(&index.table, number, 0, 0), &data[0], size)
            segment.waits = 0
            end_change(&segment.sequence)
    if whole:
        one_less(index)
    return whole


cdef int one_less(MappedIndex index) except -1:
    """A segment waits no more; with the last one goes whoever brought them back."""
    index.waiting -= 1
    if index.waiting == 0:
        index.loader = None
    return 0


def put_back(MappedIndex index not None, Py_ssize_t number, const uint8_t[::1] data not None, uint32_t buckets,
             uint32_t slots):
    """Give a segment that waits the slots that a replay made, whatever it was said to have. One thread at a time."""
    cdef Segment *segment = &index.table.segments[number]
    if not waits(index, number) or not fits(&index.table, buckets) or data.shape[0] != buckets * (BUCKET * 8):
        raise ValueError(f"segment {number} does not wait for {buckets} buckets of {data.shape[0]} bytes")
    index.table.header.bytes += (<uint64_t>buckets - segment.buckets) * (BUCKET * 8)
    index.table.header.slots += <uint64_t>slots - segment.slots
    segment.buckets, segment.slots = buckets, slots
    memcpy(bucket(&index.table, number, 0, 0), &data[0], data.shape[0])
    segment.waits = 0
    end_change(&segment.sequence)
    one_less(index)


def segment_bytes(MappedIndex index not None, Py_ssize_t number):
    """The buckets of one segment, copied; nothing may change the index meanwhile."""
    cdef Segment *segment = &index.table.segments[number]
    cdef uint64_t size = <uint64_t>segment.buckets * (BUCKET * 8)
    found = np.empty(size, np.uint8)
    cdef uint8_t[::1] out = found
    memcpy(&out[0], bucket(&index.table, number, segment.window, 0), size)
    return found, segment.buckets, segment.slots
