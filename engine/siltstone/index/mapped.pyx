"""An index as one process sees it: the memory that it lies in, and where this process maps its journals."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from siltstone.errors import DamageError
from siltstone.format.seal import journal_seed
from siltstone.index.layout import layout_bytes

from siltstone.index.guard cimport install
from siltstone.index.layout cimport (
    CLUSTER, JOURNALS, JOURNALS_AT, OLDER_AT, SEGMENTS_AT, SLOT_CLUSTERS, TAIL_AT, Header, Journal, OlderHolds, OlderList,
    Seals, Segment, load_relaxed, seals_start, sip_load, store_release, windows_at)

cdef Turns turns
memset(&turns, 0, sizeof(turns))


cdef Turns *all_turns() noexcept:
    """The count of the lookups of this process."""
    return &turns


cdef class MappedIndex:
    """What one process knows of an index: its shape, its memory, and its own maps of the journals.

    Use LogIndex where this process writes the index, IndexView where another one does.
    """

    cdef int lay_out(self, memory, KeyTypes types, const uint8_t[::1] secret, Py_ssize_t segments,
                     Py_ssize_t window_bytes) except -1:
        """Find everything in `memory`, which must be as large as the shape says."""
        cdef uint8_t *base
        if segments < 1 or segments & (segments - 1) or segments > 65536:
            raise ValueError(f"{segments} segments: must be a power of two of at most 65536")
        if window_bytes % 4096 or window_bytes < 4096:
            raise ValueError(f"a window of {window_bytes} bytes: must be whole pages")
        if secret.shape[0] != 16:
            raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
        install()
        self.memory = memory
        self.bytes_view = memory
        if self.bytes_view.shape[0] < layout_bytes(segments, window_bytes):
            raise ValueError(f"{self.bytes_view.shape[0]} bytes of memory are too few")
        if <size_t>&self.bytes_view[0] & 4095:
            raise ValueError("the memory must start at a page")
        self.types = types
        self.views = [None] * JOURNALS
        self.replaced = []
        self.volume = self.loader = None
        self.waiting = 0
        base = <uint8_t *>&self.bytes_view[0]
        memset(self.maps, 0, sizeof(self.maps))
        self.table.header = <Header *>base
        self.table.journals = <Journal *>(base + JOURNALS_AT)
        self.table.tail = base + TAIL_AT
        self.table.segments = <Segment *>(base + SEGMENTS_AT)
        self.table.windows = base + windows_at(segments)
        self.table.segment_mask = segments - 1
        self.table.window_bytes = window_bytes
        self.table.maps = self.maps
        self.table.tallies = NULL
        self.table.listed = <OlderList *>(base + OLDER_AT)
        self.table.older = NULL
        self.table.older_holds = NULL
        self.table.key_offset = types.offset
        self.table.key_size = types.size
        self.table.known = types.known
        self.table.k0 = sip_load(&secret[0])
        self.table.k1 = sip_load(&secret[8])
        return 0

    @property
    def records(self):
        """Keys in the index."""
        return load_relaxed(&self.table.header.records)

    @property
    def tombstones(self):
        """Deletions that are remembered, since a hash store has the key."""
        cdef uint64_t slots, records = load_relaxed(&self.table.header.records)
        while True:
            slots = load_relaxed(&self.table.header.slots)
            if load_relaxed(&self.table.header.records) == records:
                break
            # Somebody puts or deletes: the two must be of one moment.
            records = load_relaxed(&self.table.header.records)
        # In the middle of a change there may be one slot less than there are records.
        return max(records, slots) - records

    @property
    def keys(self):
        """Keys that lookups find here and in the hash stores; at most: one that was put again since a hash store
        has it counts twice.
        """
        self.renew_older()
        return self.records + max(0, (0 if self.older is None else self.older.records) - self.tombstones)

    @property
    def bytes(self):
        """Bytes that the segments take."""
        return load_relaxed(&self.table.header.bytes)

    cdef int check_journal(self, int journal) except -1:
        if not 0 <= journal < JOURNALS:
            raise ValueError(f"journal number {journal} is not in 0-{JOURNALS - 1}")
        return 0

    cdef object seals_of(self, uint32_t extent, uint64_t generation):
        """What a map needs so that each cluster is verified before it is first believed."""
        cdef uint8_t[::1] room
        memory = bytearray(sizeof(Seals))
        room = memory
        seals_start(<Seals *>&room[0], journal_seed(self.volume, extent, generation))
        return memory

    cdef object damage(self, int journal, uint32_t cluster):
        """The error for cluster number `cluster` of a journal's extent, which is not as it was sealed."""
        cdef Journal *entry = &self.table.journals[journal]
        offset = entry.offset + <uint64_t>cluster * CLUSTER
        if cluster < SLOT_CLUSTERS:
            index, where = entry.tail_index, f"log cluster {entry.tail_index} in tail slot {cluster}"
        else:
            index, where = cluster - SLOT_CLUSTERS, f"log cluster {cluster - SLOT_CLUSTERS}"
        return DamageError(
            f"journal {entry.extent}, {where}, at byte {offset} of the volume: damaged; it was durable",
            journal=entry.extent, cluster=index, offset=offset)

    cdef int set_map(self, int journal, view, uint64_t life, seals=None) except -1:
        """Let lookups read the journal of this life in `view`; with None, let them find none.

        With `seals` they verify each cluster when they first need it.
        """
        cdef const uint8_t[::1] data
        cdef uint8_t[::1] room
        cdef Seals *checks = NULL
        cdef const uint8_t *base = NULL
        cdef uint64_t length = 0
        cdef Map *entry = &self.maps[journal]
        if view is not None:
            data = view
            base, length = &data[0], data.shape[0]
        if self.views[journal] is not None:
            self.replaced.append((turns.now, self.views[journal]))
        if seals is not None:
            room = seals
            checks = <Seals *>&room[0]
        self.views[journal] = None if view is None else (view, data, seals)
        store_release(&entry.life, 0)
        entry.base = base
        entry.length = length
        entry.seals = checks
        store_release(&entry.life, life)
        return 0

    cdef int take_older(self, older, void *stores, OlderHolds holds) except -1:
        """Let lookups go on in these hash stores; `older` keeps them alive."""
        if self.older is not None:
            self.replaced.append((turns.now, self.older))
        self.older = older
        self.table.older_holds = holds
        store_release(<uint64_t *>&self.table.older, <uint64_t>stores)
        return 0

    cdef int renew_older(self) except -1:
        """Open the hash stores that are listed, where they are others than a lookup found; False where whoever
        changes the list does not come to the end of it.
        """
        # The writer's own change with the list, in another thread of this process.
        return False

    cdef int drop_replaced(self) except -1:
        """Let go of views that no lookup can be reading any more."""
        for _ in range(2):
            if turns.running[1 - (turns.now & 1)] == 0:
                turns.now += 1
        # Not in place: what goes with a view may run anything, this included.
        self.replaced = [(turn, old) for turn, old in self.replaced if turn + 2 > turns.now]
        return 0

    cdef int load(self, Py_ssize_t segment) except -1:
        """Bring the slots of a segment back that waits for them; with -1 of all segments."""
        loader = self.loader
        # Another thread may have been faster.
        if loader is not None:
            loader(self, segment)
        return 0

    def load_rest(self):
        """Bring all slots into memory that still wait on the medium."""
        self.load(-1)

    cdef int map_again(self, int journal) except -1:
        """Map a journal that a lookup found no map of."""
        # The writer's own maps change under the same sequence numbers as its journals.
        return 0
