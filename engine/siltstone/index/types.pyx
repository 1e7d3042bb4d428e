"""Which entry types have a key, and where."""

from siltstone.errors import EntryError

from siltstone.index.layout cimport ENTRY_MAX, TYPE_DELETE


cdef class KeyTypes:
    """Which entry types have a key, and where in their payload.

    :param keys: type id to (offset, size) [bytes]
    :param known: ids of types that may be met although they have no key here
    """

    def __init__(self, keys, known=()):
        cdef int kind
        for kind in range(256):
            self.offset[kind] = -1
            self.size[kind] = 0
            self.known[kind] = kind == TYPE_DELETE or kind in keys or kind in known
        for kind, (offset, size) in keys.items():
            if not (0 <= kind <= 255 and 0 <= offset and 0 < size and offset + size <= ENTRY_MAX - 2):
                raise ValueError(f"key {offset, size} of type {kind:#04x}")
            self.offset[kind] = offset
            self.size[kind] = size

    def packed(self):
        """Offset and size of the key of each of 256 types, a byte each; size 0 where it has none."""
        found = bytearray(512)
        cdef int kind
        for kind in range(256):
            if self.size[kind]:
                found[2 * kind], found[2 * kind + 1] = self.offset[kind], self.size[kind]
        return bytes(found)


cdef int check_key(KeyTypes types, int kind, Py_ssize_t size) except -1:
    if not 0 <= kind <= 255 or types.offset[kind] < 0:
        raise EntryError(f"entry type {kind:#04x} has no key", type=kind)
    if size != types.size[kind]:
        raise EntryError(f"a key of type {kind:#04x} has {types.size[kind]} bytes, not {size}", type=kind, size=size)
    return 0
