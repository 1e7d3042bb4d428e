"""Read-only maps of files and devices that keep no descriptor: a store has one for each of its journals.

``mmap.mmap`` of the standard library duplicates the descriptor of every map before Python 3.13, and a process has
few descriptors.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno

import os

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *where, size_t length, int protection, int flags, int descriptor, long offset)
    int munmap(void *where, size_t length)
    int PROT_READ
    int MAP_SHARED
    void *MAP_FAILED


cdef class Mapping:
    """`length` bytes at `offset` of an open file, shared and read-only; unmapped with its last view.

    `offset` is a multiple of the page size. OSError where the kernel refuses. Reading a page that the medium
    cannot give raises SIGBUS in whoever touches it.
    """

    cdef void *address
    cdef Py_ssize_t length

    def __cinit__(self, int descriptor, long offset, Py_ssize_t length):
        self.length = 0
        if length <= 0:
            raise ValueError(f"a map of {length} bytes")
        self.address = mmap(NULL, length, PROT_READ, MAP_SHARED, descriptor, offset)
        if self.address == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.length = length

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.address, self.length, 1, flags)

    def __dealloc__(self):
        if self.length:
            munmap(self.address, self.length)
