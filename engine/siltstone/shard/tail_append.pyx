"""The short way of a small batch into a shard: where the tail of its journal takes it, in memory alone.

Single puts go this way, unless the index may know the key: then the entry before is read, and that may wait. It is
compiled, so that no interrupt comes between its steps, and keeps the interpreter lock, so that no other thread comes to
wait for the shard meanwhile.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t

from siltstone.format.kernels cimport ClusterWriter
from siltstone.index.layout cimport TYPE_DELETE, load_relaxed
from siltstone.index.table cimport LogIndex

cdef enum:
    FEW_BYTES = 512


cdef bint only_puts(const uint8_t *stream, Py_ssize_t size) noexcept:
    """Whether nothing in it deletes, which may have to be remembered; what is no entry is for others to say."""
    cdef Py_ssize_t at = 0
    while size - at >= 2 and stream[at] >= 2:
        if stream[at + 1] == TYPE_DELETE:
            return False
        at += stream[at]
    return True


def append_to_tail(shard not None, stream not None, Py_ssize_t records):
    """Append packed entries as one batch to the tail of a shard, and index them; whether that was done.

    False, with nothing changed, for all that takes more than memory and this moment, and where something is amiss: then
    :meth:`siltstone.shard.shard.Shard.append` does it, or says why not. Not durable yet. Raises what is amiss with the
    batch, or with the index.

    :param stream: a buffer of bytes, not kept
    :param records: how many of the entries may bring a new key
    """
    cdef Py_buffer view
    cdef bint done
    lock = shard.lock
    PyObject_GetBuffer(stream, &view, PyBUF_SIMPLE)
    try:
        if not 0 < view.len <= FEW_BYTES or not only_puts(<const uint8_t *>view.buf, view.len):
            return False
        # Asked first: it may be a test's own, in which an interrupt may come.
        now = shard.volume.ports.clock()
        if not lock.acquire(False):
            return False
        try:
            done = append_held(shard, <const uint8_t *>view.buf, view.len, records, now)
        finally:
            lock.release()
    finally:
        PyBuffer_Release(&view)
    return done


cdef bint append_held(shard, const uint8_t *stream, Py_ssize_t size, Py_ssize_t records, now) except -1:
    cdef ClusterWriter writer
    cdef LogIndex index
    cdef uint32_t start
    cdef int64_t position
    cdef int number
    journal = shard.journal
    # With a reserve what is left may be for deletions.
    if journal is None or shard.broken is not None or shard.reserve is not None:
        return False
    if journal.poison is not None or journal.given_up:
        return False
    store = shard.store
    index = store.index
    # What of the index still waits on the medium must be read first.
    if index.waiting or (records and load_relaxed(&index.table.header.slots) + records > store.size.records):
        return False
    # To read what is replaced may wait for the medium, which no other thread should.
    if index.may_know(stream, size):
        return False
    number = store.number_of(journal.extent)
    writer = journal.writer
    start = writer.used
    position = writer.append_entries(stream, size)
    if position < 0:
        return False
    try:
        journal.is_noted = False
        shard.last_change = now
        index.show_tail(number, writer.index, writer.tail, start, writer.used)
        index.apply_few(number, stream, size, position)
        store.uncovered += size
    except BaseException as error:
        shard.append_failed(journal, (writer.index, start), error)
        raise
    return True
