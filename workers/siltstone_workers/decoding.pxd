from libc.stdint cimport uint8_t


cdef class Assembler:
    cdef object parts

    cdef object take_from(self, object owner, const uint8_t *data, Py_ssize_t size)
