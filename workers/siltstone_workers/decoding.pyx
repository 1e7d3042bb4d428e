"""Bodies of frames, taken apart: the message, and the bulk behind it. See frames.py for what lies where."""

from siltstone.errors import ProtocolError
from siltstone_workers.frames import BULK_CODE as _BULK_CODE
from siltstone_workers.frames import BULK_HEAD_SIZE as _BULK_HEAD_SIZE
from siltstone_workers.frames import BULK_MAX as _BULK_MAX
from siltstone_workers.frames import DEPTH_MAX as _DEPTH_MAX
from siltstone_workers.frames import DROP as _DROP
from siltstone_workers.frames import MESSAGE_MAX as _MESSAGE_MAX
from siltstone_workers.frames import PART as _PART
from siltstone_workers.frames import too_deep, unpack_message

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    BULK_CODE = 0xC6
    BULK_HEAD_SIZE = 5
    BULK_MAX = 68 * 1024 * 1024
    DEPTH_MAX = 16
    DROP = 1
    KIND_MAX = 255
    MESSAGE_MAX = 48 * 1024
    PART = 0

    ENDLESS = -1
    DEEP = -2

assert (BULK_CODE, BULK_HEAD_SIZE, BULK_MAX, DEPTH_MAX, DROP, MESSAGE_MAX, PART) == (
    _BULK_CODE, _BULK_HEAD_SIZE, _BULK_MAX, _DEPTH_MAX, _DROP, _MESSAGE_MAX, _PART)


cdef uint64_t number_at(const uint8_t *data, int size) noexcept nogil:
    """A big-endian number of so many bytes."""
    cdef uint64_t number = 0
    for at in range(size):
        number = number << 8 | data[at]
    return number


cdef Py_ssize_t value_end(const uint8_t *data, Py_ssize_t size) noexcept nogil:
    """Where the msgpack value ends that `data` begins with; nothing is made of it.

    ENDLESS where that is not within `size` bytes, or no value; DEEP where lists and maps lie in one another too deep.
    """
    #: values that are still to come, of each list or map that is open; the first is the value itself
    cdef uint64_t left[DEPTH_MAX + 1]
    cdef uint64_t length
    cdef Py_ssize_t at = 0
    cdef int depth = 0, code, length_size
    cdef bint is_list
    left[0] = 1
    while True:
        while left[depth] == 0:
            if depth == 0:
                return at
            depth -= 1
        left[depth] -= 1
        if at >= size:
            return ENDLESS
        code = data[at]
        at += 1
        if code <= 0x7F or code >= 0xE0 or code == 0xC0 or code == 0xC2 or code == 0xC3:
            continue
        is_list = False
        length_size = 0
        length = 0
        if code <= 0x8F:
            is_list, length = True, 2 * (code & 0x0F)
        elif code <= 0x9F:
            is_list, length = True, code & 0x0F
        elif code <= 0xBF:
            length = code & 0x1F
        elif 0xC4 <= code <= 0xC6:
            length_size = 1 << (code - 0xC4)
        elif 0xCA <= code <= 0xCB:
            length = 4 << (code - 0xCA)
        elif 0xCC <= code <= 0xCF:
            length = 1 << (code - 0xCC)
        elif 0xD0 <= code <= 0xD3:
            length = 1 << (code - 0xD0)
        elif 0xD9 <= code <= 0xDB:
            length_size = 1 << (code - 0xD9)
        elif 0xDC <= code <= 0xDF:
            is_list = True
            length_size = 2 << (code & 1)
        else:
            # Extensions, and what means nothing.
            return ENDLESS
        if length_size:
            if size - at < length_size:
                return ENDLESS
            length = number_at(data + at, length_size)
            at += length_size
            if code >= 0xDE:
                length *= 2
        if not is_list:
            if <uint64_t>(size - at) < length:
                return ENDLESS
            at += length
            continue
        if depth == DEPTH_MAX:
            return DEEP
        depth += 1
        left[depth] = length


cdef object whole(object body):
    """The bytes of a body; ProtocolError where it has none."""
    view = memoryview(body)
    if not view.nbytes:
        raise ProtocolError("a body without bytes", rule="message", value=None)
    return view


cdef tuple decode(object owner, const uint8_t *data, Py_ssize_t size):
    """The message and the bulk in a whole body, the first `size` bytes of `owner`; the bulk is a view of it."""
    cdef Py_ssize_t end = value_end(data, min(size, <Py_ssize_t>MESSAGE_MAX)), length
    if end == DEEP:
        raise too_deep()
    if end < 0:
        # It says itself what is wrong.
        unpack_message(memoryview(owner)[: min(size, MESSAGE_MAX)])
        raise ProtocolError("a message without an end", rule="message", value=None)
    message = unpack_message(memoryview(owner)[:end])
    if type(message) is not list or not message or type((<list>message)[0]) is not int:
        raise ProtocolError(
            f"a message must be a list that starts with its kind, not {message!r:.80}", rule="message", value=None)
    if not 0 <= (<list>message)[0] <= KIND_MAX:
        raise ProtocolError(f"kind {message[0]!r:.40}", rule="kind", value=str(message[0])[:40])
    if end == size:
        return message, None
    length = size - end
    if length < BULK_HEAD_SIZE or data[end] != BULK_CODE:
        raise ProtocolError(f"{length} bytes behind the message are no bulk", rule="bulk", value=length)
    length -= BULK_HEAD_SIZE
    if number_at(data + end + 1, 4) != <uint64_t>length:
        raise ProtocolError(
            f"bulk of {number_at(data + end + 1, 4)} bytes in a frame that holds {length} of it",
            rule="bulk", value=number_at(data + end + 1, 4))
    return message, memoryview(owner)[end + BULK_HEAD_SIZE : size]


def decode_body(body not None):
    """The message and the bulk in a whole body; the bulk is a view of it. ProtocolError says which rule it breaks."""
    cdef const uint8_t[::1] data = whole(body)
    return decode(body, &data[0], data.shape[0])


cdef class Assembler:
    """Puts bulk together that comes in parts; keeps at most BULK_MAX bytes."""

    def __cinit__(self):
        self.parts = bytearray()

    def take(self, body not None):
        """The message in a body, with its whole bulk; None for a part of what comes later."""
        cdef const uint8_t[::1] data = whole(body)
        return self.take_from(body, &data[0], data.shape[0])

    cdef object take_from(self, object owner, const uint8_t *data, Py_ssize_t size):
        """As :meth:`take` for a body that is the first `size` bytes of `owner`."""
        message, bulk = taken = decode(owner, data, size)
        cdef int kind = (<list>message)[0]
        if kind == DROP:
            self.parts = bytearray()
            return None
        if kind != PART and not self.parts:
            return taken
        if not bulk:
            # An empty part as well: any number of them would come to nothing.
            raise ProtocolError("a part without bulk", rule="part", value=kind)
        length = len(self.parts) + len(bulk)
        if length > BULK_MAX:
            raise ProtocolError(
                f"bulk of {length} bytes and more; at most {BULK_MAX}", rule="bulk size", value=length)
        self.parts += bulk
        if kind == PART:
            return None
        whole, self.parts = self.parts, bytearray()
        return message, memoryview(whole)
