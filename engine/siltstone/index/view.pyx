"""An index that another process writes."""

import mmap

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from siltstone.index.layout import JOURNAL_BYTES_MAX, layout_bytes

from siltstone.index.layout cimport (
    ABI, MAGIC, PARTS_MAX, Header, Journal, OlderList, load_acquire, load_half, load_relaxed, unchanged, wait_a_moment)
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.types cimport KeyTypes


cdef class IndexView(MappedIndex):
    """The index of one shard that another process writes, for lookups; nothing is ever written to it.

    :param memory: what the writer has as its memory, mapped here for reading; kept while the view lives
    :param types: which types have keys, as the writer has them
    :param secret: 16 bytes, the writer's
    :param segments: the writer's
    :param window_bytes: the writer's [bytes]
    :param older: gets the parts of hash stores that are listed, of each what :class:`siltstone.hash_store.older.Listed`
        has; returns a :class:`siltstone.hash_store.older.OlderStores` of them, made for this call. As with `map`.
        Without it there must never be any
    :param map: gets (journal number, offset in the volume, length) [bytes]; returns the buffer of that extent, which
        is kept as long as a lookup may read it. What it is told comes out of the shared memory: it checks that the
        range is one that may be mapped. May be called by several threads at once.
    :param volume: the uuid under which clusters are sealed: each is verified when a lookup first needs it; None: they
        are not sealed
    """

    cdef object map
    cdef object open_older

    def __init__(self, memory, KeyTypes types not None, const uint8_t[::1] secret not None, Py_ssize_t segments,
                 Py_ssize_t window_bytes, map not None, older=None, bytes volume=None):
        cdef Header *header
        self.lay_out(memory, types, secret, segments, window_bytes)
        self.volume = volume
        self.map = map
        self.open_older = older
        header = self.table.header
        if load_acquire(&header.magic) != MAGIC:
            raise ValueError("there is no index in this memory yet")
        if header.abi != ABI:
            raise ValueError(f"an index laid out by version {header.abi}; this one knows {ABI}")
        if header.segments != <uint64_t>segments or header.window_bytes != <uint64_t>window_bytes:
            raise ValueError(
                f"an index of {header.segments} segments of {header.window_bytes} bytes, not of {segments} segments of"
                f" {window_bytes} bytes")

    def map_journal(self, int number):
        """Map a journal's extent where its writer says that it lies; returns whether there is a new map of it.

        Nothing where the map is the right one already, no journal has this number, or the writer is in the middle
        of changing that.
        """
        cdef Journal *journal
        cdef uint64_t seen, life = 0, offset = 0, length = 0, generation = 0
        cdef uint32_t extent = 0
        cdef uint32_t waits = 0
        self.check_journal(number)
        journal = &self.table.journals[number]
        while True:
            seen = load_acquire(&journal.sequence)
            life = load_relaxed(&journal.life)
            offset, length = load_relaxed(&journal.offset), load_relaxed(&journal.length)
            extent, generation = load_half(&journal.extent), load_relaxed(&journal.generation)
            if not seen & 1 and unchanged(&journal.sequence, seen):
                break
            if wait_a_moment(&waits):
                return False
        if life == 0 or self.maps[number].life == life:
            return False
        if not 0 < length <= <uint64_t>JOURNAL_BYTES_MAX:
            raise ValueError(f"journal {number} says that it has {length} bytes")
        buffer = self.map(number, offset, length)
        if buffer is None:
            raise ValueError(f"journal {number} of {length} bytes at {offset} was not mapped")
        # Another thread may have been faster.
        if self.maps[number].life == life:
            return False
        self.set_map(number, buffer, life, None if self.volume is None else self.seals_of(extent, generation))
        self.drop_replaced()
        return True

    cdef int map_again(self, int journal) except -1:
        self.map_journal(journal)
        return 0

    cdef int renew_older(self) except -1:
        cdef OlderList *listed = self.table.listed
        cdef uint64_t seen
        cdef uint32_t waits = 0, count, i
        while True:
            seen = load_acquire(&listed.sequence)
            count = load_half(&listed.count)
            if not seen & 1 and count <= PARTS_MAX:
                listing = [(load_half(&listed.parts[i].extent), load_relaxed(&listed.parts[i].generation),
                            load_relaxed(&listed.parts[i].offset), load_relaxed(&listed.parts[i].length),
                            load_half(&listed.parts[i].store), load_relaxed(&listed.parts[i].first),
                            load_relaxed(&listed.parts[i].entries), load_relaxed(&listed.parts[i].tombstones))
                           for i in range(count)]
                if unchanged(&listed.sequence, seen):
                    break
            if wait_a_moment(&waits):
                # Whoever changes it does not come to the end: to wait again and again here helps nobody.
                return False
        if self.open_older is None:
            raise ValueError(f"the index lists {len(listing)} parts of hash stores, and this view was told of no way to open any")
        if self.older is not None and self.older.version == seen:
            return True
        try:
            opened = self.open_older(listing)
        except Exception:
            # What is listed no more may be given to somebody else and written over: that it is damaged is no news.
            if unchanged(&listed.sequence, seen):
                raise
            return True
        # Another thread may have been faster, and have opened newer ones.
        if unchanged(&listed.sequence, seen) and (self.older is None or self.older.version != seen):
            opened.attach(self, seen)
            self.drop_replaced()
        return True


cdef class AwayIndex(MappedIndex):
    """An index that nobody writes at the moment: every lookup in it ends in the reader's `stuck`.

    :param types: which types have keys
    :param secret: 16 bytes, the store's
    """

    def __init__(self, KeyTypes types not None, const uint8_t[::1] secret not None):
        self.lay_out(mmap.mmap(-1, layout_bytes(1, 4096)), types, secret, 1, 4096)
        # Odd for ever: in the middle of a change that does not end.
        self.table.segments[0].sequence = 1
