"""What compiled code elsewhere uses of the format: its integers, its checksum, its entries, the keys of seals."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void **where, size_t alignment, size_t size)

cdef extern from "format/xxh3.h" nogil:
    void xxh3_secret_of(uint64_t seed, uint8_t *secret)
    uint64_t xxh3_long(const uint8_t *data, size_t length, const uint8_t *secret)

cdef extern from "format/big_endian.h" nogil:
    uint16_t load_be16(const uint8_t *at)
    uint32_t load_be32(const uint8_t *at)
    uint64_t load_be64(const uint8_t *at)
    void store_be16(uint8_t *at, uint16_t word)
    void store_be32(uint8_t *at, uint32_t word)
    void store_be64(uint8_t *at, uint64_t word)

# The numbers of siltstone.format.constants, known to the compiler; tests/format/test_kernels.py compares them.
cdef enum:
    CLUSTER = 4096
    BODY = 4064
    USED_MAX = 4062
    CHECKSUM_AT = 4088
    SKIP_SIZE = 34
    ENTRY_MAX = 254
    SLOTS = 2
    TYPE_INVALID = 0x00
    TYPE_END = 0x01
    TYPE_SKIP = 0x03
    TYPE_NONE = 0xFF
    NO_BOUNDARY = 0xFFFF


cdef inline bint is_content(uint8_t kind) noexcept nogil:
    """May an entry of this type be appended? END and SKIP are the layout's own, 0x00 and NONE are no entries."""
    return kind != TYPE_INVALID and kind != TYPE_END and kind != TYPE_SKIP and kind != TYPE_NONE


cdef inline bint is_entry(const uint8_t *stream, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Whether a whole entry starts at `at` of a packed stream of `size` bytes."""
    return (size - at >= 2 and 2 <= stream[at] <= ENTRY_MAX and stream[at] <= size - at
            and is_content(stream[at + 1]))


cdef object bad_entry(const uint8_t[::1] stream, Py_ssize_t at)


cdef class SealKey:
    cdef uint8_t secret[192]
    cdef readonly uint64_t seed

    cdef bint valid(self, const uint8_t *cluster) noexcept nogil
    cdef void seal(self, uint8_t *cluster) noexcept nogil


cdef class ClusterWriter:
    cdef SealKey key
    cdef uint32_t generation
    cdef uint8_t *buffer          # the tail, then room for clusters that this append closes
    cdef Py_ssize_t capacity      # in clusters
    cdef uint8_t tail[4096]
    cdef readonly uint32_t index
    cdef readonly uint32_t used
    cdef readonly uint32_t committed
    cdef readonly uint64_t sequence
    cdef uint32_t durable_cluster
    cdef uint32_t durable_byte

    cdef int reserve(self, Py_ssize_t clusters) except -1
    cdef void lay(self, const uint8_t *stream, Py_ssize_t size, uint64_t *positions) noexcept nogil
    cdef void fill_seal(self, uint8_t *cluster, uint32_t index, uint32_t used, uint32_t committed,
                        uint64_t sequence) noexcept nogil
    cdef void close(self, uint8_t *cluster, uint32_t index, uint32_t used, uint32_t committed) noexcept nogil
    cdef int64_t append_entries(self, const uint8_t *stream, Py_ssize_t size) except -2
