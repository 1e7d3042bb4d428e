"""What the core knows of one shard that a worker has: what is on its way to it, and what surely still fits."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc

from siltstone_workers.errors import ProtocolError

cdef enum:
    PLACES_MIN = 16


cdef class Ledger:
    """One shard of one worker process.

    A batch that surely fits is sent without waiting for an answer, and readers find it in `pending` until the
    worker's index has it. One that may not fit is sent and waited for, so that "disk full" is told to the call
    that it is about. Sends are ordered by the process's lock; progress comes from whoever reads its pipe.

    :param shard: its number
    :param pending: where readers look before they look in the index
    """

    # The interpreter lock is never given up between two steps that belong together: no other lock is needed.

    def __init__(self, int shard, pending not None):
        self.shard = shard
        self.pending = pending

    def __dealloc__(self):
        PyMem_Free(self.places)

    cpdef bint surely_fits(self, uint64_t size, uint64_t records) noexcept:
        """Whether a batch fits behind everything that is under way."""
        return self.bytes + size <= self.room and self.records + records <= self.records_room

    cpdef uint64_t next_sequence(self) noexcept:
        """The number of the next batch: known before anybody can see the batch, so that it can be cancelled."""
        self.sequence += 1
        return self.sequence

    cpdef send(self, uint64_t sequence, stream, uint64_t records, bint visible):
        """The batch of a sequence is about to be sent. With `visible` readers find it from here on."""
        cdef OnItsWay *place
        cdef uint64_t size = len(stream)
        if self.end - self.first == self.count:
            self.grow()
        if visible:
            self.pending.add(sequence, stream)
        place = &self.places[self.end % self.count]
        place.sequence, place.size, place.records = sequence, size, records
        self.end += 1
        self.bytes += size
        self.records += records

    cdef int grow(self) except -1:
        """Make room for as many again."""
        cdef uint64_t at, count = max(2 * self.count, <uint64_t>PLACES_MIN)
        cdef OnItsWay *places = <OnItsWay *>PyMem_Realloc(self.places, count * sizeof(OnItsWay))
        if places == NULL:
            raise MemoryError("no memory for what is on its way")
        # Its places are those of numbers modulo their count, which was the power of two that it is twice of.
        for at in range(self.first, self.end):
            places[at % count] = places[at % self.count]
        self.places, self.count = places, count
        return 0

    def cancel(self, uint64_t sequence):
        """The batch may not have been sent after all: no reader finds it any more, unless the worker has it."""
        self.pending.cancel(sequence)

    cpdef int progress(self, uint64_t number, uint64_t sequence, uint64_t room, uint64_t records) except -1:
        """The worker has dealt with what was sent up to a sequence, as news of this number say.

        :param room: bytes of entries that surely still fit without more space
        :param records: keys that the index surely still takes
        """
        cdef OnItsWay *place
        if number < self.news:
            return 0  # older than what is known
        if sequence > self.sequence:
            raise ProtocolError(
                f"shard {self.shard}: news of batch {sequence}, and {self.sequence} were sent",
                rule="news of what was sent",
                value=sequence,
            )
        self.news = number
        while self.first < self.end:
            place = &self.places[self.first % self.count]
            if place.sequence > sequence:
                break
            self.bytes -= place.size
            self.records -= place.records
            self.first += 1
        self.room, self.records_room = room, records
        self.pending.retire(sequence)
        return 0

    def nothing_fits(self):
        """Until the next progress every batch is waited for."""
        self.room = 0

    @property
    def queued_bytes(self):
        """Bytes of entries under way."""
        return self.bytes
