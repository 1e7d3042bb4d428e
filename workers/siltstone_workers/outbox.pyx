"""Small batches on their way to one worker that wait for company: each message costs both sides a system call."""

from siltstone_workers.kinds import Kind

from libc.stdint cimport uint64_t

from siltstone_workers.credit cimport credit_of


cdef class Together:
    """What waits of one shard: the entries, the sequence of the last batch, and the records of all."""

    cdef bytearray entries
    cdef uint64_t sequence, records

    def __cinit__(self):
        self.entries = bytearray()


cdef class Outbox:
    """Batches by shard, in order. Those of one shard become one batch: what is together is never torn.

    Whoever uses it holds the process's lock of order. `bytes` is how many bytes of entries wait, and `credit` what the
    message that carries them takes of the credit.
    """

    def __init__(self):
        self.waiting = {}

    cpdef int add(self, int shard, uint64_t sequence, stream, uint64_t records) except -1:
        """Take a copy of a batch of packed entries."""
        cdef Together together = self.waiting.get(shard)
        cdef Py_ssize_t size = len(stream)
        if together is None:
            together = Together()
        # The last step that may fail, but for a new one in the dictionary.
        together.entries += stream.data
        self.waiting[shard] = together
        together.sequence = sequence
        together.records += records
        self.bytes += size
        return 0

    @property
    def credit(self):
        return self.needed()

    cdef Py_ssize_t needed(self) noexcept:
        return credit_of(self.bytes) if self.waiting else 0

    cdef void forget(self) noexcept:
        """What waited was sent."""
        # Nothing is allocated: what is in the pipe must not be sent again for want of memory.
        self.waiting.clear()
        self.bytes = 0

    cpdef list messages(self):
        """The message that carries everything that waits, if anything does; it goes on waiting."""
        cdef list parts = [], bulk = []
        cdef Together together
        if not self.waiting:
            return []
        for shard, together in self.waiting.items():
            parts.append((shard, together.sequence, together.records, len(together.entries)))
            bulk.append(together.entries)
        return [([<int>Kind.APPEND, 0, parts], bulk)]
