"""The index of a shard: a compact table from key hash to the place of an entry, in shareable memory.

A slot has 8 bytes: 28 bits of fingerprint and 36 bits of place (10 of journal number, 26 of byte offset in its
extent). The table of a shard is cut into segments; a fingerprint has two buckets of four slots in its segment,
both computed from the fingerprint alone, so that slots move (cuckoo moves, growth) without a look at any key.
A segment that is full is rebuilt a quarter larger in the other of its two windows of address space. Segments
start at sizes spread over that quarter, so that at any time some are just grown and some nearly full: memory
per record stays even, and no growth stops the world.

One writer, many readers. Each slot is written by one atomic store; what moves slots, and what changes where
a tail lies, makes a sequence number odd first and even after, and a reader that sees it change looks again.
All of it lies at offsets in one buffer, which may be shared memory: then readers may be other processes. After SILT (SOSP 2011) and MemC3 (NSDI 2013).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from siltstone.index.layout import JOURNAL_BYTES_MAX

from siltstone.format.kernels cimport is_entry
from siltstone.index.changes cimport apply_run, find_slot, forget_run, has_fingerprint, remember_run, shrink
from siltstone.index.guard cimport guarded, unreadable
from siltstone.index.layout cimport (
    ABI, BUCKET, CLUSTER, FINGERPRINTS, JOURNALS, MAGIC, OFFSET_BITS, PARTS_MAX, SEGMENT_BUCKETS_FIRST, SLOT_CLUSTERS,
    TAIL_IN_LOG, TAIL_IN_MEMORY, TAIL_IN_SLOT, Header, Journal, OlderList, Segment, Table, Tally, begin_change, bucket,
    buckets_of, end_change, key_hash, segment_of, store_release)
from siltstone.index.living cimport Living, drop_run, living_run, move_run
from siltstone.index.mapped cimport MappedIndex
from siltstone.index.search cimport Patience
from siltstone.index.types cimport KeyTypes, check_key, keyed


#: the place of an entry that the index does not name
NO_PLACE = np.uint64(0xFFFFFFFFFFFFFFFF)
#: what an index knows of a key
ABSENT, PUT, DELETED = range(3)


cdef void apply_guarded(void *argument) noexcept nogil:
    cdef Run *run = <Run *>argument
    run.done = apply_run(run.table, run.stream, run.size, run.positions, run.place, run.shared,
                         &run.others, &run.unknown, &run.patience)


cdef void remember_guarded(void *argument) noexcept nogil:
    cdef Run *run = <Run *>argument
    run.done = remember_run(run.table, run.stream, run.size, run.positions, run.place, run.shared, &run.patience)


cdef void forget_guarded(void *argument) noexcept nogil:
    cdef Run *run = <Run *>argument
    run.done = forget_run(run.table, run.stream, run.size, &run.patience)


cdef struct Contains:
    Table *table
    int kind
    const uint8_t *keys
    int key_size
    Py_ssize_t count
    uint8_t *flags
    Patience patience


cdef void contains_guarded(void *argument) noexcept nogil:
    cdef Contains *query = <Contains *>argument
    cdef const uint8_t *key
    cdef uint64_t hashed
    cdef bint deleted
    cdef Py_ssize_t i
    for i in range(query.count):
        key = query.keys + i * query.key_size
        hashed = key_hash(query.table.k0, query.table.k1, query.kind, key, query.key_size)
        query.flags[i] = 0
        if find_slot(query.table, hashed, query.kind, key, query.key_size, &query.patience, &deleted) != NULL:
            query.flags[i] = 2 if deleted else 1
        if query.patience.damaged:
            return


cdef struct Look:
    Table *table
    const uint8_t *clusters
    Py_ssize_t count
    Py_ssize_t last_used
    uint64_t place
    bint keep_deletes
    Living living


cdef void living_guarded(void *argument) noexcept nogil:
    cdef Look *look = <Look *>argument
    cdef const uint8_t *cluster
    cdef Py_ssize_t i, used
    for i in range(look.count):
        cluster = look.clusters + i * CLUSTER
        used = cluster[4072] << 8 | cluster[4073]
        if i == look.count - 1 and look.last_used < used:
            used = look.last_used
        living_run(look.table, cluster, used, look.place + i * CLUSTER, look.keep_deletes, &look.living)


cdef class LogIndex(MappedIndex):
    """The index of one shard, over memory that the caller provides; one writer at a time, readers at any time.

    :param memory: writable, zeroed, at least layout_bytes(segments, window_bytes); kept while the index lives
    :param types: which types have keys
    :param secret: 16 bytes; who knows them can choose keys that collide
    :param segments: a power of two
    :param window_bytes: most that one segment may take [bytes], a multiple of 4096
    :param shared: whether `memory` is shared (memfd) or private to this process
    """

    def __init__(self, memory, KeyTypes types not None, const uint8_t[::1] secret not None, Py_ssize_t segments,
                 Py_ssize_t window_bytes, bint shared=False):
        cdef Py_ssize_t i
        # Refuses what cannot be written.
        cdef uint8_t[::1] writable = memory
        cdef Header *header
        self.lay_out(memory, types, secret, segments, window_bytes)
        self.shared = shared
        memset(self.tallies, 0, sizeof(self.tallies))
        self.table.tallies = self.tallies
        header = self.table.header
        header.abi = ABI
        header.segments = segments
        header.window_bytes = window_bytes
        for i in range(segments):
            self.table.segments[i].buckets = self.first_buckets(i)
            header.bytes += self.table.segments[i].buckets * (BUCKET * 8)
        # Last: who finds it finds all the rest.
        store_release(&header.magic, MAGIC)

    cdef uint32_t first_buckets(self, Py_ssize_t segment):
        """Sizes spread over the quarter that a segment grows by, see above."""
        return <uint32_t>(SEGMENT_BUCKETS_FIRST * 1.25 ** (segment / (self.table.segment_mask + 1)))

    def shrink(self):
        """Give back the memory of segments that are less than half full, as after :meth:`drop`."""
        cdef uint64_t i, least
        self.load(-1)
        for i in range(self.table.segment_mask + 1):
            least = self.first_buckets(i)
            with nogil:
                shrink(&self.table, i, least, self.shared)

    def attach(self, int journal, view not None, uint64_t offset=0, uint32_t extent=0, uint64_t generation=0,
               bytes volume=None):
        """Let places in journal number `journal` be read from `view`, the bytes of its whole extent.

        `offset` says where in the volume that extent lies, for those who map it in other processes; `extent` and
        `generation` are its id and its life there. With `volume`, the uuid under which its clusters are sealed, each
        is verified when it is first needed: for a journal that nobody has read here.
        """
        cdef const uint8_t[::1] data = view
        cdef Journal *entry
        self.check_journal(journal)
        if not 0 < data.shape[0] <= JOURNAL_BYTES_MAX:
            raise ValueError(f"an extent of {data.shape[0]} bytes; at most {JOURNAL_BYTES_MAX}")
        entry = &self.table.journals[journal]
        self.table.header.lives += 1
        begin_change(&entry.sequence)
        store_release(&entry.life, self.table.header.lives)
        entry.offset = offset
        entry.length = data.shape[0]
        entry.extent = extent
        entry.generation = generation
        entry.live = 0
        memset(&self.tallies[journal], 0, sizeof(Tally))
        entry.tail_kind = TAIL_IN_LOG
        if volume is not None:
            self.volume = volume
            self.set_map(journal, view, entry.life, self.seals_of(extent, generation))
        else:
            self.set_map(journal, view, entry.life)
        end_change(&entry.sequence)
        self.drop_replaced()

    def list_older(self, older not None, list listing not None):
        """Let lookups go on in hash stores where the index knows nothing of a key, in other processes too.

        :param older: a :class:`siltstone.hash_store.older.OlderStores` that was given to no index yet
        :param listing: of each of their parts what :class:`siltstone.hash_store.older.Listed` has, in its order
        """
        cdef OlderList *listed = self.table.listed
        cdef Py_ssize_t i
        if len(listing) > PARTS_MAX:
            raise ValueError(f"{len(listing)} parts of hash stores; at most {PARTS_MAX}")
        begin_change(&listed.sequence)
        for i, (extent, generation, offset, length, store, first, entries, tombstones) in enumerate(listing):
            listed.parts[i].extent, listed.parts[i].generation = extent, generation
            listed.parts[i].offset, listed.parts[i].length = offset, length
            listed.parts[i].store, listed.parts[i].first = store, first
            listed.parts[i].entries, listed.parts[i].tombstones = entries, tombstones
        listed.count = <uint32_t>len(listing)
        # The version that the list has when the change ends.
        older.attach(self, listed.sequence + 1)
        end_change(&listed.sequence)
        self.drop_replaced()

    def tally(self, int journal):
        """(entries, those of them that delete, those without a key, entries that the index names) of a journal."""
        cdef Tally *tally
        self.check_journal(journal)
        tally = &self.tallies[journal]
        return tally.entries, tally.deletions, tally.keyless, self.table.journals[journal].live

    def detach(self, int journal):
        """Forget a journal that no slot names any more; ValueError where one does."""
        cdef Journal *entry
        self.check_journal(journal)
        entry = &self.table.journals[journal]
        if entry.live:
            raise ValueError(f"journal {journal}: {entry.live} entries in it are still named")
        begin_change(&entry.sequence)
        store_release(&entry.life, 0)
        self.set_map(journal, None, 0)
        end_change(&entry.sequence)
        self.drop_replaced()

    def publish_tail(self, int journal, uint32_t index, const uint8_t[::1] tail not None, uint32_t start):
        """Show readers the unwritten tail: log cluster `index`, whose bytes from `start` on are new.

        Where `index` is another than before, the cluster before must be readable where it was written.
        """
        self.check_journal(journal)
        if tail.shape[0] != CLUSTER or start > CLUSTER:
            raise ValueError("a tail has 4096 bytes")
        self.show_tail(journal, index, &tail[0], start, CLUSTER)

    cdef void show_tail(self, int journal, uint32_t index, const uint8_t *tail, uint32_t start, uint32_t end) noexcept:
        """As :meth:`publish_tail`; of the same tail only the bytes up to `end` are new."""
        cdef Journal *entry = &self.table.journals[journal]
        if entry.tail_kind == TAIL_IN_MEMORY and entry.tail_index == index:
            # No reader looks at bytes that no slot names yet.
            memcpy(self.table.tail + start, tail + start, end - start)
            return
        begin_change(&entry.sequence)
        entry.tail_index = index
        entry.tail_kind = TAIL_IN_MEMORY
        memcpy(self.table.tail, tail, CLUSTER)
        end_change(&entry.sequence)

    def publish_end(self, int journal, uint32_t index, slot):
        """Show readers where the last cluster of a journal lies that is not appended to: a slot, or None: the log."""
        cdef Journal *entry
        self.check_journal(journal)
        entry = &self.table.journals[journal]
        begin_change(&entry.sequence)
        entry.tail_index = index
        entry.tail_kind = TAIL_IN_LOG if slot is None else TAIL_IN_SLOT
        entry.tail_slot = 0 if slot is None else slot
        end_change(&entry.sequence)

    cdef int carry_out(self, void (*act)(void *) noexcept nogil, Run *run, int journal, const uint8_t[::1] stream,
                       uint64_t[::1] positions, uint64_t first=0) except -1:
        """Let `act` do what packed entries say, entry i at byte positions[i] of the extent, or all from `first` on."""
        cdef int failed
        self.check_journal(journal)
        run.others = run.done = 0
        if stream.shape[0] == 0:
            return 0
        self.load(-1)
        self.begin_run(run, journal, &stream[0], stream.shape[0], first)
        if positions is not None:
            run.positions = &positions[0]
        with nogil:
            failed = guarded(act, run)
        if failed:
            raise unreadable("indexing")
        return self.check_done(run)

    cdef void begin_run(self, Run *run, int journal, const uint8_t *stream, Py_ssize_t size, uint64_t first) noexcept:
        """Fill in a run of packed entries that lie in the extent from byte `first` on."""
        run.table, run.shared, run.others, run.unknown, run.done = &self.table, self.shared, 0, -1, 0
        run.stream, run.size, run.positions = stream, size, NULL
        run.place = <uint64_t>journal << OFFSET_BITS | first
        run.patience.waits, run.patience.damaged = 0, False

    cdef bint may_know(self, const uint8_t *stream, Py_ssize_t size) noexcept:
        """Whether the index may have a key of some packed entries, so that indexing them reads journals."""
        cdef Py_ssize_t at = 0
        cdef int kind, key_size
        cdef const uint8_t *key
        cdef uint64_t hashed, number, first, second
        cdef Segment *segment
        while is_entry(stream, at, size):
            if keyed(&self.table, stream + at, &kind, &key, &key_size):
                hashed = key_hash(self.table.k0, self.table.k1, kind, key, key_size)
                number = segment_of(&self.table, hashed)
                segment = &self.table.segments[number]
                buckets_of(hashed & FINGERPRINTS, segment.buckets, &first, &second)
                if has_fingerprint(bucket(&self.table, number, segment.window, first),
                                   bucket(&self.table, number, segment.window, second), hashed & FINGERPRINTS):
                    return True
            at += stream[at]
        return False

    cdef int apply_few(self, int journal, const uint8_t *stream, Py_ssize_t size, uint64_t first) except -1:
        """Put what a few packed entries say that lie in the extent from byte `first` on, as :meth:`apply`.

        With the interpreter lock: to give it up would let others in who wait for what the caller holds.
        """
        cdef Run run
        self.check_journal(journal)
        self.load(-1)
        self.begin_run(&run, journal, stream, size, first)
        if guarded(apply_guarded, &run):
            raise unreadable("indexing")
        return self.check_done(&run)

    def apply(self, int journal, const uint8_t[::1] stream not None, positions not None):
        """Put and delete what a packed stream of entries says.

        They must be readable there already. The last of equal keys wins. Returns the number of entries that have no key
        here. MemoryError where a segment would outgrow its window.

        :param positions: the byte of the extent at which each is; one number: where they lie as in the stream
        """
        cdef Run run
        cdef uint64_t first
        if isinstance(positions, int):
            first = positions
            if first >> OFFSET_BITS:
                raise ValueError(f"no journal has a byte {first}")
            self.carry_out(apply_guarded, &run, journal, stream, None, first)
        else:
            self.carry_out(apply_guarded, &run, journal, stream, positions)
        return run.others

    def remember(self, int journal, const uint8_t[::1] stream not None, uint64_t[::1] positions not None):
        """Let deletions that were applied to this journal be found, where the index knows nothing of their keys: a
        hash store has these, and is about to be listed. Returns how many were. MemoryError as :meth:`apply`.
        """
        cdef Run run
        self.carry_out(remember_guarded, &run, journal, stream, positions)
        return run.done

    def forget_deletions(self, const uint8_t[::1] stream not None):
        """Forget that the keys of packed entries are deleted, where that is what is known of them: no hash store has
        them any more. Returns how many. DamageError where an entry that had to be looked at is damaged.
        """
        cdef Run run
        cdef int failed
        if stream.shape[0] == 0:
            return 0
        self.load(-1)
        run.table, run.stream, run.size, run.done = &self.table, &stream[0], stream.shape[0], 0
        run.patience.waits, run.patience.damaged = 0, False
        with nogil:
            failed = guarded(forget_guarded, &run)
        if failed:
            raise unreadable("forgetting deletions")
        self.check_done(&run)
        return run.done

    cdef int check_done(self, Run *run) except -1:
        """Raise what kept a run from its end."""
        if run.patience.damaged:
            raise self.damage(run.patience.journal, run.patience.cluster)
        if run.done < 0:
            raise MemoryError("a segment of the index outgrew its window")
        return 0

    def apply_clusters(self, int journal, const uint8_t[::1] clusters not None, uint32_t first_index,
                       Py_ssize_t last_used, Py_ssize_t skipped=0):
        """Put and delete what whole, verified clusters say, from log cluster `first_index` on.

        Of the first cluster the first `skipped` bytes do not count, of the last one only the first `last_used` do.
        Returns (entries, entries without a key here,
        byte offset in the extent of the first entry of a type that is not known, or None).
        """
        cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, i
        cdef int64_t entries = 0
        cdef int failed = 0
        cdef const uint8_t *cluster
        cdef Run run
        self.check_journal(journal)
        if clusters.shape[0] % CLUSTER:
            raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
        self.load(-1)
        run.table, run.shared, run.others, run.unknown, run.done = &self.table, self.shared, 0, -1, 0
        run.positions = NULL
        run.patience.waits, run.patience.damaged = 0, False
        with nogil:
            for i in range(count):
                cluster = &clusters[0] + i * CLUSTER
                run.stream = cluster
                run.size = cluster[4072] << 8 | cluster[4073]
                if i == count - 1 and last_used < run.size:
                    run.size = last_used
                run.place = <uint64_t>journal << OFFSET_BITS | (<uint64_t>first_index + i + SLOT_CLUSTERS) * CLUSTER
                if i == 0 and skipped:
                    run.stream, run.size, run.place = cluster + skipped, run.size - skipped, run.place + skipped
                failed = guarded(apply_guarded, &run)
                if failed or run.done < 0:
                    break
                entries += run.done
        if failed:
            raise unreadable("replaying")
        self.check_done(&run)
        return entries, run.others, None if run.unknown < 0 else run.unknown

    def living(self, int journal, const uint8_t[::1] clusters not None, uint32_t first_index, Py_ssize_t last_used,
               bint keep_deletes):
        """Those entries of whole, verified clusters that still count, packed in their order.

        That is what the index names, and what has no key; with `keep_deletes` also deletions of keys that the index
        does not know, since something older may still put them. Of the last cluster the first `last_used` bytes
        count. Returns (entries, their places for :meth:`move` and :meth:`drop`, size of the largest [bytes]); the
        places are all ones where the index names none. Nothing may change the index meanwhile.
        """
        cdef Py_ssize_t count = clusters.shape[0] // CLUSTER
        cdef Look look
        self.check_journal(journal)
        if clusters.shape[0] % CLUSTER:
            raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
        out = np.empty(clusters.shape[0], np.uint8)
        places = np.empty(clusters.shape[0] // 2, np.uint64)
        cdef uint8_t[::1] entries = out
        cdef uint64_t[::1] numbers = places
        if count == 0:
            return out, places, 0
        self.load(-1)
        look.table, look.clusters, look.count, look.last_used = &self.table, &clusters[0], count, last_used
        look.place = <uint64_t>journal << OFFSET_BITS | (<uint64_t>first_index + SLOT_CLUSTERS) * CLUSTER
        look.keep_deletes = keep_deletes
        memset(&look.living, 0, sizeof(Living))
        look.living.out, look.living.places = &entries[0], &numbers[0]
        with nogil:
            failed = guarded(living_guarded, &look)
        if failed:
            raise unreadable("looking for what is alive")
        return out[:look.living.size], places[:look.living.count], look.living.largest

    def move(self, int journal, const uint8_t[::1] stream not None, const uint64_t[::1] before not None,
             const uint64_t[::1] positions not None):
        """Let the index name the copies of entries: entry i of `stream`, once at before[i], now at byte positions[i]
        of this journal's extent. Returns how many; what was put or deleted meanwhile stays as it is.
        """
        cdef int64_t moved
        self.check_journal(journal)
        if stream.shape[0] == 0:
            return 0
        self.load(-1)
        with nogil:
            moved = move_run(&self.table, &stream[0], stream.shape[0], &before[0], &positions[0],
                             <uint64_t>journal << OFFSET_BITS)
        return moved

    def drop(self, const uint8_t[::1] stream not None, const uint64_t[::1] before not None):
        """Forget entries, entry i of `stream` at before[i]; returns how many. What was put meanwhile stays."""
        cdef int64_t dropped
        if stream.shape[0] == 0:
            return 0
        self.load(-1)
        with nogil:
            dropped = drop_run(&self.table, &stream[0], stream.shape[0], &before[0])
        return dropped

    def states_of(self, int kind, const uint8_t[:, ::1] keys not None):
        """What is known of (n, key size) keys, as (n,) uint8: ABSENT, PUT or DELETED."""
        found = np.zeros(keys.shape[0], np.uint8)
        cdef uint8_t[::1] flags = found
        cdef Contains query
        cdef int failed
        check_key(self.types, kind, keys.shape[1])
        self.load(-1)
        if keys.shape[0]:
            query.table, query.kind, query.count = &self.table, kind, keys.shape[0]
            query.keys, query.key_size, query.flags = &keys[0, 0], <int>keys.shape[1], &flags[0]
            query.patience.waits, query.patience.damaged = 0, False
            with nogil:
                failed = guarded(contains_guarded, &query)
            if failed:
                raise unreadable("looking up keys")
            if query.patience.damaged:
                raise self.damage(query.patience.journal, query.patience.cluster)
        return found
