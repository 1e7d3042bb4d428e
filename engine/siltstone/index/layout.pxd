"""Where everything in an index lies, and the arithmetic that finds it; for all who write or read one."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "index/siphash.h" nogil:
    uint64_t sip_load(const uint8_t *at)
    uint64_t siphash13(uint64_t k0, uint64_t k1, const uint8_t *data, size_t size)

cdef extern from "index/atomics.h" nogil:
    uint64_t load_acquire(const uint64_t *at)
    uint64_t load_relaxed(const uint64_t *at)
    uint32_t load_half(const uint32_t *at)
    uint8_t load_byte(const uint8_t *at)
    void store_release(uint64_t *at, uint64_t word)
    void begin_change(uint64_t *sequence)
    void end_change(uint64_t *sequence)
    bint unchanged(const uint64_t *sequence, uint64_t seen)
    bint wait_a_moment(uint32_t *waits)

cdef extern from "index/seals.h" nogil:
    ctypedef struct Seals:
        pass
    void seals_start(Seals *seals, uint64_t seed)
    bint seals_known(const Seals *seals, uint64_t cluster)
    bint seals_check(Seals *seals, const uint8_t *base, uint64_t cluster, uint32_t index)

cdef extern from * nogil:
    """
    static inline void prefetch(const void *at) {
        __builtin_prefetch(at);
        __asm__ volatile (""); /* else gcc drops functions that do nothing but fetch: they have no effect, it thinks */
    }
    #define MAGIC 0x53494C5453494458u
    #define PLACE_BITS 36  /* fingerprint in the 28 bits above */
    #define OFFSET_BITS 26
    #define FINGERPRINTS (((uint64_t)1 << (64 - PLACE_BITS)) - 1)
    #define PLACES (((uint64_t)1 << PLACE_BITS) - 1)
    #define OFFSETS (((uint64_t)1 << OFFSET_BITS) - 1)
    """
    void prefetch(const void *at)
    const uint64_t MAGIC
    const int PLACE_BITS
    const int OFFSET_BITS
    const uint64_t FINGERPRINTS
    const uint64_t PLACES
    const uint64_t OFFSETS

cdef enum:
    CLUSTER = 4096
    SLOT_CLUSTERS = 2
    TYPE_DELETE = 0x04
    JOURNALS = 1024
    BUCKET = 4
    SEGMENT_BUCKETS_FIRST = 96
    CHUNK = 64
    ENTRY_MAX = 254
    OLDER_MAX = 64              # hash stores of a shard
    PARTS_MAX = 1024            # extents that they lie in

    TAIL_IN_LOG = 0       # the last cluster is where its number says
    TAIL_IN_MEMORY = 1    # it is the unwritten tail
    TAIL_IN_SLOT = 2      # it is in tail slot 0 or 1 of the extent

cdef struct Journal:
    uint64_t sequence
    uint32_t tail_index
    uint32_t tail_kind
    uint64_t tail_slot
    uint64_t life               # 0: none is attached; else this number's alone, for ever
    uint64_t offset             # of its extent in the volume [bytes]
    uint64_t length
    uint64_t generation         # its extent's, and
    uint32_t extent             # its id: with the volume's uuid they seed the seals of its clusters
    uint32_t live               # slots that name an entry in it

cdef struct Segment:
    uint64_t sequence
    uint32_t buckets
    uint32_t window
    uint32_t slots              # that name something
    uint32_t waits              # 1: for its slots, which are on the medium; its sequence is odd meanwhile
    uint64_t reserved2

cdef struct Header:
    uint64_t magic              # written last
    uint64_t abi
    uint64_t segments
    uint64_t window_bytes
    uint64_t records            # keys that are here
    uint64_t bytes
    uint64_t lives              # how many a journal was attached
    uint64_t slots              # that name something: a record, or a deletion that is remembered

# A part of a hash store of the shard, for those who look into the index from other processes.
cdef struct Listed:
    uint64_t offset             # of its extent in the volume [bytes]
    uint64_t length
    uint64_t generation
    uint32_t extent
    uint32_t store              # number of the hash store that it is a part of; 0 is the newest
    uint64_t first              # entries with a smaller hash do not count
    uint64_t entries            # that count
    uint64_t tombstones         # among them

# Those there are, the newest hash store first, of each its parts in the order of their hashes. An even sequence is the
# version of the list; 0: there never was any.
cdef struct OlderList:
    uint64_t sequence
    uint32_t count
    uint32_t reserved
    Listed parts[PARTS_MAX]

cdef enum:
    ABI = 4                     # rises with every change of what lies in the memory, or where
    JOURNALS_AT = 4096
    TAIL_AT = 4096 + 64 * 1024
    OLDER_AT = 4096 + 64 * 1024 + 4096
    SEGMENTS_AT = 4096 + 64 * 1024 + 4096 + 15 * 4096

# Where this process sees the extent of a journal. `life` says which journal `base` and `length` belong to: it is
# cleared before they change and set after.
cdef struct Map:
    uint64_t life
    const uint8_t *base
    uint64_t length
    Seals *seals                # which clusters were verified; NULL: all that it can be asked for

# Whether the hash stores that `older` is hold a key: asked by the writer, which does not know what they are.
ctypedef bint (*OlderHolds)(void *older, uint64_t hashed, int kind, const uint8_t *key, int size) noexcept nogil

# What the writer has counted of a journal: all that was appended to it, alive or not.
cdef struct Tally:
    uint32_t entries
    uint32_t deletions
    uint32_t keyless

cdef struct Table:
    Header *header
    Journal *journals
    Segment *segments
    uint8_t *tail
    uint8_t *windows
    uint64_t segment_mask
    uint64_t window_bytes
    Map *maps
    const int *key_offset       # per type, -1 where it has no key
    const int *key_size
    const uint8_t *known
    uint64_t k0
    uint64_t k1
    Tally *tallies              # of the writer; NULL in a view
    OlderList *listed
    void *older                 # the hash stores as this process has them open: what hash_store/older.pxd says
    OlderHolds older_holds      # NULL where there never were any


cdef inline Py_ssize_t windows_at(Py_ssize_t segments) noexcept nogil:
    return SEGMENTS_AT + (segments * <Py_ssize_t>sizeof(Segment) + 4095) // 4096 * 4096


cdef inline uint64_t key_hash(uint64_t k0, uint64_t k1, int kind, const uint8_t *key, int size) noexcept nogil:
    return siphash13(k0, k1 ^ <uint64_t>kind, key, size)


cdef inline uint32_t shard_of(uint64_t hashed, uint32_t shards) noexcept nogil:
    return <uint32_t>(((hashed >> 32) * shards) >> 32)


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    x ^= x >> 33
    x *= <uint64_t>0xFF51AFD7ED558CCD
    x ^= x >> 29
    x *= <uint64_t>0xC4CEB9FE1A85EC53
    return x ^ (x >> 32)


cdef inline uint64_t *bucket(Table *table, uint64_t number, uint64_t window, uint64_t index) noexcept nogil:
    return <uint64_t *>(table.windows + (number * 2 + window) * table.window_bytes + index * (BUCKET * 8))


cdef inline void buckets_of(uint64_t fingerprint, uint64_t buckets, uint64_t *first, uint64_t *second) noexcept nogil:
    cdef uint64_t mixed = mix(fingerprint)
    first[0] = ((mixed >> 32) * buckets) >> 32
    second[0] = ((mixed & <uint64_t>0xFFFFFFFF) * buckets) >> 32
    if second[0] == first[0]:
        second[0] = first[0] + 1 if first[0] + 1 < buckets else 0


cdef inline uint64_t segment_of(Table *table, uint64_t hashed) noexcept nogil:
    return (hashed >> 28) & table.segment_mask
