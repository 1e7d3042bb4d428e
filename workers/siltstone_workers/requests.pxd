from siltstone_workers.answers cimport Answers
from siltstone_workers.credit cimport Credit
from siltstone_workers.ledger cimport Ledger
from siltstone_workers.outbox cimport Outbox
from siltstone_workers.sender cimport Sender


cdef class Requests:
    cdef readonly Sender sender
    cdef readonly dict ledgers
    cdef readonly Credit credit
    cdef readonly unsigned long long sent
    cdef readonly Outbox outbox
    cdef public str cause
    cdef Answers answers
    cdef double deadline
    cdef object kill, unknown
    #: held while something is made visible and sent: both in one order
    cdef object order
    #: the worker was told to end; records were sent, and nothing was heard of the worker since
    cdef bint is_ending, is_unheard

    cdef bint fits(self, Ledger ledger, stream, records) except -1
    cpdef bint try_append(self, Ledger ledger, stream, unsigned long long records) except -1
    cdef int send_small(self, Ledger ledger, stream, unsigned long long records, Py_ssize_t size) except -1
    cdef int keep(self, Ledger ledger, stream, unsigned long long records) except -1
    cpdef int check_open(self) except -1
    cdef int post(self, list last, bint are_counted) except -1
    cpdef int send(self, list messages, Sender pipe) except -1
    cpdef int hear(self, number, shards) except -1
