"""Several writes to one descriptor in one call: the interpreter lock is given up once for all of them.

Where many threads work, each time that it is given up another takes it, and who wrote waits until it is free again.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uintptr_t

cdef extern from "unistd.h" nogil:
    ssize_t pwrite(int descriptor, const void *data, size_t size, int64_t offset)

cdef enum:
    PIECES = 16                 # that are written without the lock; more take it again in between


cdef struct Piece:
    const char *data
    Py_ssize_t size
    Py_ssize_t done
    int64_t offset


cdef int put(int descriptor, Piece *pieces, int count, int *error) noexcept nogil:
    """Write one piece after the other; how many are whole. Where that is not all of them, why the next is not."""
    cdef int at
    cdef ssize_t written
    error[0] = 0
    for at in range(count):
        while pieces[at].done < pieces[at].size:
            written = pwrite(descriptor, pieces[at].data + pieces[at].done, pieces[at].size - pieces[at].done,
                             pieces[at].offset + pieces[at].done)
            if written <= 0:
                error[0] = errno if written < 0 else 0
                return at
            pieces[at].done += written
    return count


def write_pieces(int descriptor, list pieces not None, Py_ssize_t first, Py_ssize_t alignment):
    """Write (offset, buffer) pieces from number `first` on, whole and in order: (the first that is not, its bytes that
    are, errno).

    The errno is 0 where the system took nothing more without saying why, where a buffer does not begin at a multiple of
    `alignment` in memory, and where all are written.
    """
    cdef Piece found[PIECES]
    cdef Py_buffer views[PIECES]
    cdef int count, whole, error, at
    cdef bint lies_well = True
    cdef Py_ssize_t next = first
    while lies_well and next < len(pieces):
        count = 0
        try:
            while count < PIECES and next + count < len(pieces):
                offset, data = pieces[next + count]
                found[count].offset = offset
                PyObject_GetBuffer(data, &views[count], PyBUF_SIMPLE)
                found[count].data, found[count].size, found[count].done = <const char *>views[count].buf, views[count].len, 0
                lies_well = <uintptr_t>views[count].buf % <uintptr_t>alignment == 0
                if not lies_well:
                    PyBuffer_Release(&views[count])
                    break
                count += 1
            whole = 0
            while True:
                with nogil:
                    whole += put(descriptor, found + whole, count - whole, &error)
                if error != EINTR:
                    break
                PyErr_CheckSignals()
        finally:
            for at in range(count):
                PyBuffer_Release(&views[at])
        next += whole
        if whole < count:
            return next, found[whole].done, error
    return next, 0, 0
