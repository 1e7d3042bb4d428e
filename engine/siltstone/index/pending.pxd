"""What lookups need of the entries that are on their way to an index."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from siltstone.index.frames cimport Frames, find_entry, take_up
from siltstone.index.layout cimport TYPE_DELETE, Table, load_acquire, mix, prefetch
from siltstone.index.types cimport KeyTypes

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

ctypedef enum Answer:
    ASK_THE_INDEX = 0
    PUT = 1
    DELETED = 2

cdef struct Waiting:
    pthread_mutex_t lock        # never held while the interpreter lock is waited for
    Frames frames
    Table table                 # only types and secret


cdef inline bint is_empty(Waiting *waiting) noexcept nogil:
    # Acquire: what left because the index shows it must be seen in the index by who finds it gone here.
    return load_acquire(&waiting.frames.live) == 0


cdef inline uint64_t added(Waiting *waiting) noexcept nogil:
    """How many streams were ever added."""
    return load_acquire(&waiting.frames.frame_end)


cdef inline bint open_waiting(Waiting *waiting) noexcept nogil:
    """Take the lock and make every entry findable; False without memory, and then without the lock."""
    pthread_mutex_lock(&waiting.lock)
    if take_up(&waiting.frames, &waiting.table):
        return True
    pthread_mutex_unlock(&waiting.lock)
    return False


cdef inline void close_waiting(Waiting *waiting) noexcept nogil:
    pthread_mutex_unlock(&waiting.lock)


cdef inline void expect(Waiting *waiting, uint64_t hashed) noexcept nogil:
    """Fetch what the search for a hash will look at first; under the lock."""
    if waiting.frames.cells != NULL:
        prefetch(&waiting.frames.cells[mix(hashed) & waiting.frames.cell_mask])


cdef inline Answer newest(Waiting *waiting, uint64_t hashed, int kind, const uint8_t *key, int size,
                          uint8_t *out) noexcept nogil:
    """What the newest entry of a key says; with PUT it is in `out` (256 bytes). Under the lock."""
    cdef const uint8_t *entry = find_entry(&waiting.frames, &waiting.table, hashed, kind, key, size)
    if entry == NULL:
        return ASK_THE_INDEX
    if entry[1] == TYPE_DELETE:
        return DELETED
    memcpy(out, entry, entry[0])
    return PUT


cdef class Pending:
    cdef Waiting waiting
    cdef dict buffers
    cdef uint64_t last
    cdef readonly KeyTypes types

    cdef void lock(self) noexcept
    cdef int let_go(self, list sequences) except -1
