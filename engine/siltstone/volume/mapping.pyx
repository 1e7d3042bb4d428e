"""Maps of files, devices and shared memory that keep no descriptor: a store has one for each of its journals.

``mmap.mmap`` of the standard library duplicates the descriptor of every map before Python 3.13, and a process has
few descriptors.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno

import os

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *where, size_t length, int protection, int flags, int descriptor, long offset)
    int munmap(void *where, size_t length)
    int madvise(void *where, size_t length, int advice)
    int PROT_READ
    int PROT_WRITE
    int MADV_NOHUGEPAGE
    int MADV_NORMAL
    int MADV_RANDOM
    int MADV_REMOVE
    int MADV_WILLNEED
    int MAP_SHARED
    void *MAP_FAILED


cdef class Mapping:
    """`length` bytes at `offset` of an open file, shared, read-only unless `writable`; unmapped with its last view.

    `offset` is a multiple of the page size. OSError where the kernel refuses. Reading a page that the medium
    cannot give raises SIGBUS in whoever touches it.
    """

    cdef void *address
    cdef Py_ssize_t length
    cdef bint writable

    def __cinit__(self, int descriptor, long offset, Py_ssize_t length, bint writable=False):
        self.length = 0
        if length <= 0:
            raise ValueError(f"a map of {length} bytes")
        self.writable = writable
        self.address = mmap(NULL, length, PROT_READ | (PROT_WRITE if writable else 0), MAP_SHARED, descriptor, offset)
        if self.address == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.length = length

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.address, self.length, not self.writable, flags)

    def avoid_huge_pages(self):
        """Let its memory be taken in small pages, whatever the system prefers; a hint."""
        madvise(self.address, self.length, MADV_NOHUGEPAGE)

    def expect_random_reads(self):
        """Let a page that is touched come alone, not with its neighbours; a hint."""
        madvise(self.address, self.length, MADV_RANDOM)

    def expect_reads_of(self, Py_ssize_t start, Py_ssize_t length):
        """Let all of a part come at once, before it is touched; a hint, until :meth:`expect_random_reads`.

        `start` is a multiple of the page size.
        """
        if 0 <= start < self.length and 0 < length <= self.length - start:
            madvise(<char *>self.address + start, length, MADV_NORMAL)
            madvise(<char *>self.address + start, length, MADV_WILLNEED)

    def give_back(self):
        """Free the memory behind a writable map of shared memory: it reads as zeros then, for everybody."""
        if madvise(self.address, self.length, MADV_REMOVE):
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.length:
            munmap(self.address, self.length)
