"""The compiled loops of the format: checking sealed clusters, laying entries into them, cutting them apart.

Bytes in, bytes out, no I/O. Loops over batches run without the interpreter lock.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from siltstone.errors import EntryError

CONSTANTS = {
    "CLUSTER_SIZE": CLUSTER, "BODY_SIZE": BODY, "USED_MAX": USED_MAX, "SKIP_SIZE": SKIP_SIZE,
    "ENTRY_SIZE_MAX": ENTRY_MAX, "SLOT_CLUSTERS": SLOTS, "TYPE_INVALID": TYPE_INVALID, "TYPE_END": TYPE_END,
    "TYPE_SKIP": TYPE_SKIP, "TYPE_NONE": TYPE_NONE, "NO_BOUNDARY": NO_BOUNDARY,
}


def checksum(const uint8_t[::1] data not None, uint64_t seed):
    """XXH3-64 of more than 240 bytes under `seed`, as the loops here compute it."""
    cdef uint8_t secret[192]
    if data.shape[0] <= 240:
        raise ValueError(f"{data.shape[0]} bytes: this is for more than 240")
    xxh3_secret_of(seed, secret)
    return xxh3_long(&data[0], data.shape[0], secret)


cdef bint tiles(const uint8_t *cluster, uint32_t used, uint32_t boundary) noexcept nogil:
    """Whether entries fill `used` bytes exactly, and one of them starts or ends at `boundary`."""
    cdef uint32_t at = 0
    cdef bint met = boundary == 0
    while at < used:
        if used - at < 2 or cluster[at] < 2 or cluster[at] > ENTRY_MAX or not is_content(cluster[at + 1]):
            return False
        at += cluster[at]
        met |= at == boundary
    return at == used and met


cdef class SealKey:
    """The secret under which the clusters of one generation of one journal are sealed."""

    def __init__(self, uint64_t seed):
        self.seed = seed
        xxh3_secret_of(seed, self.secret)

    cdef bint valid(self, const uint8_t *cluster) noexcept nogil:
        cdef uint32_t used = load_be16(cluster + 4072)
        cdef uint32_t committed = load_be16(cluster + 4074)
        if load_be64(cluster + CHECKSUM_AT) != xxh3_long(cluster, CHECKSUM_AT, self.secret):
            return False
        if used > USED_MAX or (committed > used and committed != NO_BOUNDARY):
            return False
        return tiles(cluster, used, 0 if committed == NO_BOUNDARY else committed)

    cdef void seal(self, uint8_t *cluster) noexcept nogil:
        store_be64(cluster + CHECKSUM_AT, xxh3_long(cluster, CHECKSUM_AT, self.secret))

    def count_valid(self, const uint8_t[::1] clusters not None, uint32_t first_index):
        """How many clusters from the start of the buffer are valid and bear the indexes `first_index`, + 1, ...

        The buffer is whole clusters of 4096 bytes.
        """
        cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, i
        cdef const uint8_t *base
        if clusters.shape[0] % CLUSTER:
            raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
        if count == 0:
            return 0
        base = &clusters[0]
        with nogil:
            for i in range(count):
                if load_be32(base + i * CLUSTER + 4068) != first_index + <uint64_t>i or not self.valid(base + i * CLUSTER):
                    break
            else:
                i = count
        return i

    def valid_flags(self, const uint8_t[::1] clusters not None, uint8_t[::1] flags not None):
        """Set flags[i] to 1 where cluster i of the buffer is valid, whatever its index, else to 0."""
        cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, i
        if clusters.shape[0] % CLUSTER or flags.shape[0] != count:
            raise ValueError("one flag a whole cluster is needed")
        if count == 0:
            return
        cdef const uint8_t *base = &clusters[0]
        with nogil:
            for i in range(count):
                flags[i] = self.valid(base + i * CLUSTER)


def is_boundary(const uint8_t[::1] cluster not None, uint32_t byte):
    """Whether an entry of a verified cluster starts or ends at `byte`."""
    if cluster.shape[0] != CLUSTER:
        raise ValueError(f"a cluster has {CLUSTER} bytes, not {cluster.shape[0]}")
    return tiles(&cluster[0], load_be16(&cluster[4072]), byte)


def seal_cluster(SealKey key not None, uint8_t[::1] cluster not None):
    """Write the checksum of one 4096-byte cluster whose other seal fields are set."""
    if cluster.shape[0] != CLUSTER:
        raise ValueError(f"a cluster has {CLUSTER} bytes, not {cluster.shape[0]}")
    key.seal(&cluster[0])


def split_entries(const uint8_t[::1] stream not None, uint32_t[::1] starts not None):
    """Find where the entries of a packed stream start; how many there are.

    `stream` is entries in the RFC's grammar, one after another, nothing between. `starts` must hold one
    number for each; half the stream's length always does. EntryError names the offset of what is no entry.
    """
    cdef Py_ssize_t at = 0, count = 0, size = stream.shape[0], room = starts.shape[0]
    cdef const uint8_t *base
    if size == 0:
        return 0
    base = &stream[0]
    with nogil:
        while at < size:
            if size - at < 2 or base[at] < 2 or base[at] > ENTRY_MAX or at + base[at] > size or not is_content(base[at + 1]):
                break
            if count == room:
                break
            starts[count] = <uint32_t>at
            count += 1
            at += base[at]
    if at != size:
        raise bad_entry(stream, at)
    return count


cdef object bad_entry(const uint8_t[::1] stream, Py_ssize_t at):
    cdef Py_ssize_t left = stream.shape[0] - at
    size = stream[at]
    kind = stream[at + 1] if left > 1 else None
    shown = "none" if kind is None else f"{kind:#04x}"
    return EntryError(
        f"no valid entry at offset {at}: size {size}, type {shown}, {left} bytes left", offset=at, size=size, type=kind
    )


cdef struct Layout:
    Py_ssize_t entries
    Py_ssize_t closed
    Py_ssize_t bad       # offset of what is no entry, or -1
    uint32_t used        # of the last cluster


cdef Layout measure(const uint8_t *stream, Py_ssize_t size, uint32_t used) noexcept nogil:
    """What laying the stream behind `used` bytes of a cluster would take; writes nothing."""
    cdef Layout layout
    cdef Py_ssize_t at = 0
    cdef uint32_t length
    layout.entries = layout.closed = 0
    layout.bad = -1
    while at < size:
        length = stream[at]
        if size - at < 2 or length < 2 or length > ENTRY_MAX or at + length > size or not is_content(stream[at + 1]):
            layout.bad = at
            break
        if used + length > USED_MAX:
            layout.closed += 1
            used = 0
        used += length
        at += length
        layout.entries += 1
    layout.used = used
    return layout


def count_of_type(const uint8_t[::1] stream not None, uint8_t kind):
    """How many of some packed entries, which are known to be whole, are of this type."""
    cdef Py_ssize_t at = 0, size = stream.shape[0], found = 0
    with nogil:
        while size - at >= 2 and stream[at] >= 2:
            found += stream[at + 1] == kind
            at += stream[at]
    return found


def measure_stream(const uint8_t[::1] stream not None):
    """(entries, log clusters) that a packed stream takes in a journal of its own; EntryError for what is no entry."""
    cdef Layout layout
    if stream.shape[0] == 0:
        return 0, 0
    with nogil:
        layout = measure(&stream[0], stream.shape[0], 0)
    if layout.bad >= 0:
        raise bad_entry(stream, layout.bad)
    return layout.entries, layout.closed + 1


cdef class ClusterWriter:
    """Lays entries into sealed clusters, in memory: the tail, and what is closed before it.

    :param key: of this generation
    :param generation: its number; the low 32 bits go into each seal, for people who look
    :param tail: the bytes of the entries that the tail holds already (at an `end` that appending goes on at)
    :param index: which log cluster the tail is
    :param sequence: batches committed so far
    :param durable: (cluster, byte) up to which a successful flush covered the log
    """

    def __cinit__(self):
        self.buffer = NULL

    def __init__(self, SealKey key not None, uint64_t generation, const uint8_t[::1] tail, uint32_t index,
                 uint64_t sequence, durable):
        self.key = key
        self.generation = <uint32_t>generation
        self.index = index
        self.used = self.committed = <uint32_t>tail.shape[0]
        self.sequence = sequence
        self.durable_cluster, self.durable_byte = durable
        memset(self.tail, 0xFF, CLUSTER)
        if self.used > USED_MAX:
            raise ValueError(f"a tail of {self.used} bytes")
        if self.used:
            memcpy(self.tail, &tail[0], self.used)
            if not tiles(self.tail, self.used, 0):
                raise EntryError(f"the tail's {self.used} bytes are not whole entries", size=int(self.used))
        self.capacity = 0

    def __dealloc__(self):
        free(self.buffer)

    @property
    def durable(self):
        return self.durable_cluster, self.durable_byte

    @durable.setter
    def durable(self, position):
        self.durable_cluster, self.durable_byte = position

    @property
    def position(self):
        """(cluster, byte) behind the last entry."""
        return self.index, self.used

    def measure(self, const uint8_t[::1] stream not None):
        """(entries, clusters that appending the packed stream would close); EntryError for what is no entry."""
        cdef Layout layout
        if stream.shape[0] == 0:
            return 0, 0
        with nogil:
            layout = measure(&stream[0], stream.shape[0], self.used)
        if layout.bad >= 0:
            raise bad_entry(stream, layout.bad)
        return layout.entries, layout.closed

    def stage(self, const uint8_t[::1] stream not None, uint64_t[::1] positions not None):
        """Lay a measured stream out as one batch; the closed clusters, to be written at log cluster `index`.

        Nothing of the writer changes before :meth:`take`. `positions[i]` becomes the byte offset of entry i
        in the extent. The view returned is page-aligned, and valid until the next call while the writer lives.
        """
        cdef Layout layout
        cdef Py_ssize_t size = stream.shape[0]
        cdef Py_ssize_t clusters
        if size == 0:
            raise ValueError("an empty batch")
        with nogil:
            layout = measure(&stream[0], size, self.used)
        if layout.bad >= 0:
            raise bad_entry(stream, layout.bad)
        if positions.shape[0] != layout.entries:
            raise ValueError(f"{positions.shape[0]} positions for {layout.entries} entries")
        clusters = layout.closed + 1
        self.reserve(clusters)
        with nogil:
            self.lay(&stream[0], size, &positions[0])
        if layout.closed == 0:
            return None
        return <uint8_t[:layout.closed * CLUSTER]>self.buffer

    cdef int reserve(self, Py_ssize_t clusters) except -1:
        cdef void *fresh = NULL
        if clusters <= self.capacity:
            return 0
        free(self.buffer)
        self.buffer = NULL
        self.capacity = 0
        if posix_memalign(&fresh, CLUSTER, clusters * CLUSTER):
            raise MemoryError(f"{clusters} clusters of write buffer")
        self.buffer = <uint8_t *>fresh
        self.capacity = clusters
        return 0

    cdef void lay(self, const uint8_t *stream, Py_ssize_t size, uint64_t *positions) noexcept nogil:
        cdef uint8_t *cluster = self.buffer
        cdef uint32_t index = self.index, used = self.used, committed = self.committed, length
        cdef Py_ssize_t at = 0, run = 0, entry = 0
        memcpy(cluster, self.tail, used)
        while at < size:
            length = stream[at]
            if used + length > USED_MAX:
                memcpy(cluster + used - (at - run), stream + run, at - run)
                run = at
                self.close(cluster, index, used, committed)
                # Where the last batch ended with the cluster, the next one starts at a boundary.
                committed = 0 if committed == used else NO_BOUNDARY
                cluster += CLUSTER
                index += 1
                used = 0
            positions[entry] = (<uint64_t>index + SLOTS) * CLUSTER + used
            entry += 1
            used += length
            at += length
        memcpy(cluster + used - (at - run), stream + run, at - run)
        store_be32(cluster + 4068, index)
        store_be16(cluster + 4072, <uint16_t>used)

    cdef void fill_seal(self, uint8_t *cluster, uint32_t index, uint32_t used, uint32_t committed, uint64_t sequence) noexcept nogil:
        store_be32(cluster + 4064, self.generation)
        store_be32(cluster + 4068, index)
        store_be16(cluster + 4072, <uint16_t>used)
        store_be16(cluster + 4074, <uint16_t>committed)
        store_be32(cluster + 4076, self.durable_cluster)
        store_be16(cluster + 4080, <uint16_t>self.durable_byte)
        store_be16(cluster + 4082, <uint16_t>(sequence >> 32))
        store_be32(cluster + 4084, <uint32_t>sequence)
        self.key.seal(cluster)

    cdef void close(self, uint8_t *cluster, uint32_t index, uint32_t used, uint32_t committed) noexcept nogil:
        cdef uint32_t left = CLUSTER - used
        memset(cluster + used, 0xFF, BODY - used)
        if left > ENTRY_MAX:
            cluster[used] = SKIP_SIZE
            cluster[used + 1] = TYPE_SKIP
            cluster[used + SKIP_SIZE] = <uint8_t>(left - SKIP_SIZE)
            cluster[used + SKIP_SIZE + 1] = TYPE_END
        else:
            cluster[used] = <uint8_t>left
            cluster[used + 1] = TYPE_END
        self.fill_seal(cluster, index, used, committed, self.sequence)

    def restamp(self, Py_ssize_t first, Py_ssize_t closed):
        """Seal the staged clusters `first` ... `closed` - 1 again, with the durable position as it is now."""
        cdef Py_ssize_t i
        cdef uint8_t *cluster
        with nogil:
            for i in range(first, closed):
                cluster = self.buffer + i * CLUSTER
                self.fill_seal(cluster, load_be32(cluster + 4068), load_be16(cluster + 4072),
                               load_be16(cluster + 4074), self.sequence)

    def take(self, Py_ssize_t closed):
        """Make the staged batch the writer's own: its closed clusters are written, its end is a boundary."""
        cdef const uint8_t *last = self.buffer + closed * CLUSTER
        self.index = load_be32(last + 4068)
        self.used = self.committed = load_be16(last + 4072)
        self.sequence += 1
        memset(self.tail, 0xFF, CLUSTER)
        memcpy(self.tail, last, self.used)

    def append(self, const uint8_t[::1] stream not None):
        """Append packed entries as one batch where the tail takes all of them; the offset of the first in the extent.

        The others follow it byte by byte. -1 where they do not fit, or there are none; EntryError for what is no entry.
        Nothing is changed then.
        """
        if stream.shape[0] == 0:
            return -1
        return self.append_entries(&stream[0], stream.shape[0])

    cdef int64_t append_entries(self, const uint8_t *stream, Py_ssize_t size) except -2:
        """As :meth:`append`, of some bytes."""
        cdef Layout layout
        cdef uint64_t position
        if self.used + size > USED_MAX:
            return -1
        # So little that giving up the interpreter lock would take longer.
        layout = measure(stream, size, self.used)
        if layout.bad >= 0:
            raise bad_entry(<const uint8_t[:size]>stream, layout.bad)
        memcpy(self.tail + self.used, stream, size)
        position = (<uint64_t>self.index + SLOTS) * CLUSTER + self.used
        self.used += <uint32_t>size
        self.committed = self.used
        self.sequence += 1
        return position

    def tail_bytes(self):
        """The entries of the tail, without seal or filler."""
        return PyBytes_FromStringAndSize(<const char *>self.tail, self.used)

    def tail_view(self):
        """A read-only view of the tail's 4096 bytes, valid while the writer lives; what lies behind `used` is filler."""
        cdef const uint8_t[::1] view = <const uint8_t[:CLUSTER]>self.tail
        return view

    def tail_copy(self, uint8_t[::1] cluster not None):
        """Write the sealed copy of the tail, as a slot holds it, into the 4096 bytes of `cluster`."""
        if cluster.shape[0] != CLUSTER:
            raise ValueError(f"a cluster has {CLUSTER} bytes, not {cluster.shape[0]}")
        memcpy(&cluster[0], self.tail, CLUSTER)
        self.fill_seal(&cluster[0], self.index, self.used, self.committed, self.sequence)


def locate_entries(const uint8_t[::1] clusters not None, Py_ssize_t last_used, uint32_t[::1] starts not None):
    """Where the entries of whole, verified sealed clusters start in the buffer; how many there are.

    Of the last cluster only the first `last_used` bytes count. `starts` must hold one number for each entry;
    half the buffer's length always does.
    """
    cdef Py_ssize_t count = clusters.shape[0] // CLUSTER, room = starts.shape[0], found = 0, i
    cdef uint32_t at, used
    cdef const uint8_t *cluster
    if clusters.shape[0] % CLUSTER:
        raise ValueError(f"{clusters.shape[0]} bytes are not whole clusters")
    if count == 0:
        return 0
    with nogil:
        for i in range(count):
            cluster = &clusters[0] + i * CLUSTER
            used = load_be16(cluster + 4072)
            if i == count - 1 and last_used < used:
                used = <uint32_t>last_used
            at = 0
            while at + 2 <= used and cluster[at] >= 2 and found < room:
                starts[found] = <uint32_t>(i * CLUSTER + at)
                found += 1
                at += cluster[at]
    return found
