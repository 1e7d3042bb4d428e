"""Which entry types have a key, and where an entry has it."""

from libc.stdint cimport uint8_t

from siltstone.index.layout cimport TYPE_DELETE, Table


cdef class KeyTypes:
    cdef int offset[256]
    cdef int size[256]
    cdef uint8_t known[256]


cdef int check_key(KeyTypes types, int kind, Py_ssize_t size) except -1


cdef inline bint keyed(Table *table, const uint8_t *entry, int *kind, const uint8_t **key, int *size) noexcept nogil:
    """The key that an entry puts or deletes; False where it has none."""
    kind[0] = entry[1]
    if kind[0] == TYPE_DELETE:
        if entry[0] < 3:
            return False
        kind[0] = entry[2]
        key[0] = entry + 3
        size[0] = entry[0] - 3
        return table.key_size[kind[0]] == size[0] and table.key_offset[kind[0]] >= 0
    if table.key_offset[kind[0]] < 0 or entry[0] < 2 + table.key_offset[kind[0]] + table.key_size[kind[0]]:
        return False
    key[0] = entry + 2 + table.key_offset[kind[0]]
    size[0] = table.key_size[kind[0]]
    return True
