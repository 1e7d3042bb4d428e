cdef class Sender:
    cdef int writing
    cdef object silence, lock, pack
    cdef Py_ssize_t limit
    cdef readonly Py_ssize_t frame_room, window
    #: a frame was begun and not ended; parts of a message were sent and not its end
    cdef bint torn, in_parts, closed
    cdef readonly unsigned long long sent

    cpdef send_all(self, list messages)
    cdef object write_parts(self, bulk)
    cpdef write(self, list pieces, Py_ssize_t messages)
    cdef Py_ssize_t put(self, list pieces) except -1
    cpdef wait_writable(self)
