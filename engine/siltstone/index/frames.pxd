"""Entries in buffers of others, found by their key: what the pending entries of a shard are kept in.

Frames are taken up in the order of their sequence and leave in that order, but for a few that are taken out. A
node stands for one entry; nodes have numbers that rise for ever and lie in a ring, so that frames that leave at
the front take their nodes with them at no cost. A cell of the hash table has the newest node of a hash, and each
node the one before it of the same hash.

Nothing here is safe for several threads, and nothing here touches Python objects.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp

from siltstone.index.layout cimport TYPE_DELETE, Table, key_hash, mix, store_release
from siltstone.index.types cimport keyed

cdef enum:
    CELLS_FIRST = 256
    # An empty table that is larger gives its memory back.
    CELLS_KEPT = 65536

cdef struct Frame:
    uint64_t sequence
    const uint8_t *stream       # NULL: it was taken out
    uint64_t size
    uint64_t node_end           # the number behind its last node, where it is taken up

cdef struct Node:
    uint64_t hashed
    uint64_t older              # number of the node before it of the same hash; 0: none
    const uint8_t *entry        # NULL: it was taken out

cdef struct Cell:
    uint64_t hashed
    uint64_t newest             # 0: never used

cdef struct Frames:
    Frame *frames               # a ring; numbers rise for ever, a number's place is its low bits
    uint64_t frame_mask
    uint64_t frame_first
    uint64_t frame_end          # read without the lock
    uint64_t frame_taken        # frames before this number have their nodes
    Node *nodes
    uint64_t node_mask
    uint64_t node_first         # from 1 on
    uint64_t node_end
    Cell *cells
    uint64_t cell_mask
    uint64_t cells_used
    uint64_t live               # frames that were not taken out; read without the lock
    uint64_t bytes


cdef inline bint room_for_frame(Frames *self) noexcept nogil:
    """Make room for one frame more; False without memory."""
    cdef uint64_t i, size = self.frame_mask + 1
    cdef Frame *wider
    if self.frames != NULL and self.frame_end - self.frame_first < size:
        return True
    size = 64 if self.frames == NULL else 2 * size
    wider = <Frame *>malloc(size * sizeof(Frame))
    if wider == NULL:
        return False
    for i in range(self.frame_first, self.frame_end):
        wider[i & (size - 1)] = self.frames[i & self.frame_mask]
    free(self.frames)
    self.frames, self.frame_mask = wider, size - 1
    return True


cdef inline bint room_for_node(Frames *self) noexcept nogil:
    """Make room for one node more; False without memory."""
    cdef uint64_t i, size = self.node_mask + 1
    cdef Node *wider
    if self.nodes != NULL and self.node_end - self.node_first < size:
        return True
    size = 256 if self.nodes == NULL else 2 * size
    wider = <Node *>malloc(size * sizeof(Node))
    if wider == NULL:
        return False
    for i in range(self.node_first, self.node_end):
        wider[i & (size - 1)] = self.nodes[i & self.node_mask]
    free(self.nodes)
    self.nodes, self.node_mask = wider, size - 1
    return True


cdef inline Cell *cell_of(Frames *self, uint64_t hashed) noexcept nogil:
    """The cell of a hash, or the free one where it would be."""
    cdef uint64_t at = mix(hashed) & self.cell_mask
    while self.cells[at].newest and self.cells[at].hashed != hashed:
        at = (at + 1) & self.cell_mask
    return &self.cells[at]


cdef inline bint room_for_cell(Frames *self) noexcept nogil:
    """Make room for one hash more, at most half full, without the hashes that are gone; False without memory."""
    cdef uint64_t i, size = CELLS_FIRST, kept = 0
    cdef Cell *old = self.cells
    cdef uint64_t old_size = self.cell_mask + 1 if old != NULL else 0
    if old != NULL and self.cells_used * 2 < old_size:
        return True
    for i in range(old_size):
        kept += old[i].newest >= self.node_first
    # A quarter full at most, so that it takes as many hashes again before the next time.
    while size < kept * 4:
        size *= 2
    self.cells = <Cell *>calloc(size, sizeof(Cell))
    if self.cells == NULL:
        self.cells = old
        return False
    self.cell_mask = size - 1
    for i in range(old_size):
        if old[i].newest >= self.node_first:
            cell_of(self, old[i].hashed)[0] = old[i]
    self.cells_used = kept
    free(old)
    return True


cdef inline bint take_entry(Frames *self, Table *table, const uint8_t *entry) noexcept nogil:
    """Make an entry the newest of its key; False without memory."""
    cdef const uint8_t *key
    cdef int kind, size
    cdef uint64_t hashed
    cdef Cell *cell
    cdef Node *node
    if not keyed(table, entry, &kind, &key, &size):
        return True
    if not (room_for_cell(self) and room_for_node(self)):
        return False
    hashed = key_hash(table.k0, table.k1, kind, key, size)
    cell = cell_of(self, hashed)
    self.cells_used += cell.newest == 0
    node = &self.nodes[self.node_end & self.node_mask]
    node.hashed, node.older, node.entry = hashed, cell.newest, entry
    cell.hashed, cell.newest = hashed, self.node_end
    self.node_end += 1
    return True


cdef inline bint take_up(Frames *self, Table *table) noexcept nogil:
    """Give every frame its nodes; False without memory, and then the same frame is begun anew the next time."""
    cdef Frame *frame
    cdef uint64_t at, begun
    while self.frame_taken < self.frame_end:
        frame = &self.frames[self.frame_taken & self.frame_mask]
        at, begun = 0, self.node_end
        while frame.stream != NULL and at + 1 < frame.size:
            # What does not go on as entries do is nobody's entry.
            if frame.stream[at] < 2 or frame.stream[at] > frame.size - at:
                break
            if not take_entry(self, table, frame.stream + at):
                take_out(self, begun, self.node_end)
                return False
            at += frame.stream[at]
        frame.node_end = self.node_end
        self.frame_taken += 1
    return True


cdef inline void take_out(Frames *self, uint64_t node, uint64_t end) noexcept nogil:
    """Let nobody find these nodes."""
    while node < end:
        self.nodes[node & self.node_mask].entry = NULL
        node += 1


cdef inline void add_frame(Frames *self, uint64_t sequence, const uint8_t *stream, uint64_t size) noexcept nogil:
    """Put a frame behind all others; room_for_frame has made room."""
    cdef Frame *frame = &self.frames[self.frame_end & self.frame_mask]
    frame.sequence, frame.stream, frame.size, frame.node_end = sequence, stream, size, 0
    self.bytes += size
    # In this order: a reader that counts it as added, and looks after that, must not find that nothing is here.
    store_release(&self.live, self.live + 1)
    store_release(&self.frame_end, self.frame_end + 1)


cdef inline void drop_first(Frames *self) noexcept nogil:
    """Take the first frame out of the ring, and its nodes with it."""
    cdef Frame *frame = &self.frames[self.frame_first & self.frame_mask]
    if frame.stream != NULL:
        self.bytes -= frame.size
        store_release(&self.live, self.live - 1)
    if self.frame_first < self.frame_taken:
        self.node_first = frame.node_end
    else:
        self.frame_taken += 1
    self.frame_first += 1
    if self.frame_first == self.frame_end and self.cell_mask >= CELLS_KEPT:
        release_table(self)


cdef inline void release_table(Frames *self) noexcept nogil:
    """Give the memory of nodes and cells back; no frame needs any."""
    free(self.nodes)
    free(self.cells)
    self.nodes, self.cells, self.cells_used, self.cell_mask, self.node_mask = NULL, NULL, 0, 0, 0
    self.node_first = self.node_end


cdef inline Frame *frame_of(Frames *self, uint64_t sequence) noexcept nogil:
    """The frame of a sequence that is in it, or NULL."""
    cdef uint64_t low = self.frame_first, high = self.frame_end, middle
    while low < high:
        middle = (low + high) // 2
        if self.frames[middle & self.frame_mask].sequence < sequence:
            low = middle + 1
        else:
            high = middle
    if low == self.frame_end or self.frames[low & self.frame_mask].sequence != sequence:
        return NULL
    return &self.frames[low & self.frame_mask]


cdef inline void cancel_frame(Frames *self, Frame *frame) noexcept nogil:
    """Take one frame out, wherever it is."""
    cdef uint64_t number = self.frame_first + ((<uint64_t>(frame - self.frames) - self.frame_first) & self.frame_mask)
    cdef uint64_t node = self.node_first
    if frame.stream == NULL:
        return
    if number < self.frame_taken:
        if number > self.frame_first:
            node = self.frames[(number - 1) & self.frame_mask].node_end
        take_out(self, node, frame.node_end)
    frame.stream = NULL
    self.bytes -= frame.size
    store_release(&self.live, self.live - 1)
    while self.frame_first < self.frame_end and self.frames[self.frame_first & self.frame_mask].stream == NULL:
        drop_first(self)


cdef inline const uint8_t *find_entry(Frames *self, Table *table, uint64_t hashed, int kind, const uint8_t *key,
                                      int size) noexcept nogil:
    """The newest entry that puts or deletes a key, or NULL."""
    cdef uint64_t number
    cdef Node *node
    cdef const uint8_t *found
    cdef int found_kind, found_size
    if self.cells == NULL:
        return NULL
    number = cell_of(self, hashed).newest
    while number >= self.node_first:
        node = &self.nodes[number & self.node_mask]
        if node.entry != NULL and keyed(table, node.entry, &found_kind, &found, &found_size):
            if found_kind == kind and found_size == size and memcmp(found, key, size) == 0:
                return node.entry
        number = node.older
    return NULL
