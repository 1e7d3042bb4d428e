from siltstone.locks cimport Sleepers
from siltstone_workers.waiting cimport Awake


cdef class Answer:
    cdef readonly object request, error, refusal, bulk
    cdef readonly double asked
    cdef readonly bint has_arrived


cdef class Answers:
    cdef object receiver, broken, error, lock
    cdef Sleepers sleepers
    cdef public object heard
    #: by request, those that somebody waits for
    cdef readonly dict expected
    cdef unsigned long long last
    #: nothing more can be read; who waits is told by `end`
    cdef bint someone_reads, is_over
    cdef int pidfd
    #: how answers are waited for
    cdef public Awake awake

    cpdef Answer expect(self)
    cpdef bint wait(self, Answer answer, double seconds) except -1
    cdef bint read_until(self, Answer answer, double deadline) except -1
    cdef int take(self, message) except -1
