"""Frames, made of messages. See frames.py for what lies where; decoding.pyx takes them apart."""

from siltstone_workers.frames import BULK_CODE as _BULK_CODE
from siltstone_workers.frames import BULK_HEAD_SIZE as _BULK_HEAD_SIZE
from siltstone_workers.frames import MESSAGE_MAX as _MESSAGE_MAX
from siltstone_workers.frames import PREFIX_SIZE as _PREFIX_SIZE
from siltstone_workers.frames import packer, too_long

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef enum:
    BULK_CODE = 0xC6

assert (BULK_CODE, BULK_HEAD_SIZE, MESSAGE_MAX, PREFIX_SIZE) == (
    _BULK_CODE, _BULK_HEAD_SIZE, _MESSAGE_MAX, _PREFIX_SIZE)


cdef inline void store(uint8_t *at, size_t number) noexcept:
    """A big-endian u32."""
    at[0], at[1], at[2], at[3] = number >> 24 & 0xFF, number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF


cdef bytes checked(object body):
    """A message in msgpack; ProtocolError where it is too long."""
    if PyBytes_GET_SIZE(body) > MESSAGE_MAX:
        raise too_long(body)
    return body


cdef bytes head_of(bytes body, Py_ssize_t bulk_size):
    """What stands in a frame in front of so many bytes of bulk; less than 0 where it has no bulk."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    cdef bint has_bulk = bulk_size >= 0
    cdef bytes head = PyBytes_FromStringAndSize(NULL, PREFIX_SIZE + size + (BULK_HEAD_SIZE if has_bulk else 0))
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(head)
    store(at, size + (BULK_HEAD_SIZE + bulk_size if has_bulk else 0))
    memcpy(at + PREFIX_SIZE, PyBytes_AS_STRING(body), size)
    if has_bulk:
        at[PREFIX_SIZE + size] = BULK_CODE
        store(at + PREFIX_SIZE + size + 1, bulk_size)
    return head


def encode_frame(message, bulk=None):
    """The pieces of one frame, to be written one after another; bulk is not copied."""
    cdef bytes body = checked(packer()(message))
    if bulk is None:
        return [head_of(body, -1)]
    view = memoryview(bulk).cast("B")
    return [head_of(body, len(view)), view]
