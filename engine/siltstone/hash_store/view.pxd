"""One process's sight of one hash store; `store` is what search.pxd looks into while the view lives."""

from libc.stdint cimport uint8_t, uint32_t

from siltstone.format.kernels cimport SealKey
from siltstone.hash_store.search cimport Store
from siltstone.index.types cimport KeyTypes


cdef class HashStoreView:
    cdef Store store
    cdef const uint8_t[::1] data
    cdef SealKey key
    cdef uint8_t *private           # fences, bits of verified pages, cells of the filter; NULL: they are those of
    cdef HashStoreView opened       # this one
    cdef readonly KeyTypes types
    cdef readonly object header
    cdef readonly object extent
    cdef readonly object offset
    cdef readonly Py_ssize_t memory_bytes

    cdef int take_private(self) except -1
    cdef int search(self, int kind, const uint8_t *keys, int key_size, Py_ssize_t count, uint8_t *flags, uint8_t *rows,
                    Py_ssize_t row_size) except -1
    cdef int read_part(self, uint32_t part, uint32_t first, uint32_t count, uint8_t *into, Py_ssize_t size) except -1
    cdef int read_page(self, uint32_t cluster, uint32_t part, uint8_t *page) except -1
    cdef int check_fences(self) except -1
    cdef object damage(self, uint32_t cluster, str what)
