cdef enum:
    BULK_HEAD_SIZE = 5
    MESSAGE_MAX = 48 * 1024
    PREFIX_SIZE = 4

cdef bytes checked(object body)
cdef bytes head_of(bytes body, Py_ssize_t bulk_size)
