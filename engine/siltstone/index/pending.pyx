"""Entries that are on their way to the writer of an index: newer than all that the index knows."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from siltstone.index.frames cimport (
    Frame, add_frame, cancel_frame, drop_first, frame_of, release_table, room_for_frame)
from siltstone.index.layout cimport load_relaxed, sip_load
from siltstone.index.types cimport KeyTypes


cdef class Pending:
    """What was sent to the writer of a shard's index and may not be in it yet; lookups ask here first.

    Threads may add, retire and look up at once. An entry is found from the return of `add` until `retire` or
    `cancel` is called; `retire` may be called once the index shows the entry, so that it is always in one of the two.

    :param types: which types have keys
    :param secret: 16 bytes, that of the index
    """

    def __cinit__(self):
        memset(&self.waiting, 0, sizeof(self.waiting))
        # Number 0 means: no node.
        self.waiting.frames.node_first = self.waiting.frames.node_end = 1
        if pthread_mutex_init(&self.waiting.lock, NULL):
            raise MemoryError("no lock for pending entries")

    def __init__(self, KeyTypes types not None, const uint8_t[::1] secret not None):
        if secret.shape[0] != 16:
            raise ValueError(f"a secret of {secret.shape[0]} bytes: must be 16")
        self.types = types
        self.buffers = {}
        self.waiting.table.key_offset = types.offset
        self.waiting.table.key_size = types.size
        self.waiting.table.known = types.known
        self.waiting.table.k0 = sip_load(&secret[0])
        self.waiting.table.k1 = sip_load(&secret[8])

    def __dealloc__(self):
        # Whoever looks up holds a reference.
        release_table(&self.waiting.frames)
        free(self.waiting.frames.frames)
        pthread_mutex_destroy(&self.waiting.lock)

    cdef void lock(self) noexcept:
        """Take the lock, with the interpreter lock given up where that takes a while."""
        while pthread_mutex_trylock(&self.waiting.lock):
            # Not kept: who holds it may want the interpreter lock only after us.
            with nogil:
                pthread_mutex_lock(&self.waiting.lock)
                pthread_mutex_unlock(&self.waiting.lock)

    @property
    def frames(self):
        """How many streams are here."""
        return load_relaxed(&self.waiting.frames.live)

    @property
    def bytes(self):
        """How many bytes they have together."""
        return load_relaxed(&self.waiting.frames.bytes)

    def add(self, uint64_t sequence, stream not None):
        """Let lookups find the entries of a packed stream, the last of equal keys, before all that was added before.

        `sequence` is larger than any before. The stream is kept, not copied: it must not change, and lie in memory
        that can be read for sure (not a mapped file). A later entry that does not end inside the stream, and all
        behind it, is nobody's.
        """
        cdef const uint8_t[::1] data = stream
        # Of a stream without bytes nothing is read, but NULL would say that it was taken out.
        cdef const uint8_t *at = &data[0] if data.shape[0] else <const uint8_t *>&self.waiting
        # Made before the lock is taken: it may set off the collector, and that may run anything.
        cdef object held = data
        cdef bint room
        self.lock()
        if sequence <= self.last:
            close_waiting(&self.waiting)
            raise ValueError(f"sequence {sequence} after {self.last}: must rise")
        room = room_for_frame(&self.waiting.frames)
        if room:
            try:
                self.buffers[sequence] = held
            except BaseException:
                close_waiting(&self.waiting)
                raise
            self.last = sequence
            add_frame(&self.waiting.frames, sequence, at, data.shape[0])
        close_waiting(&self.waiting)
        if not room:
            raise MemoryError("no memory for pending entries")

    def retire(self, uint64_t sequence):
        """Forget the entries of this sequence and of all before it: the index shows them now."""
        cdef list gone = []
        cdef Frames *frames = &self.waiting.frames
        cdef Frame *frame
        self.lock()
        while frames.frame_first < frames.frame_end:
            frame = &frames.frames[frames.frame_first & frames.frame_mask]
            if frame.sequence > sequence:
                break
            gone.append(frame.sequence)
            drop_first(frames)
        close_waiting(&self.waiting)
        self.let_go(gone)

    def cancel(self, uint64_t sequence):
        """Forget the entries of this sequence alone: nobody will index them. What they hid is found again."""
        cdef Frame *frame
        self.lock()
        frame = frame_of(&self.waiting.frames, sequence)
        if frame != NULL:
            cancel_frame(&self.waiting.frames, frame)
        close_waiting(&self.waiting)
        if frame != NULL:
            self.let_go([sequence])

    def clear(self):
        """Forget all entries."""
        self.retire(self.last)

    cdef int let_go(self, list sequences) except -1:
        # Only now, without the lock: what goes with a buffer may run anything.
        for sequence in sequences:
            self.buffers.pop(sequence, None)
        return 0
