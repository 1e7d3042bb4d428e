"""What a worker does next: a state machine without I/O. Messages go in, instructions come out.

A worker greets, recovers its shards, serves them, ends them. It deals with what it is sent in order. Callers that flush
at the same time share one request: the core sees to that.
"""

from enum import Enum, auto

from siltstone.errors import ProtocolError
from siltstone_workers.instructions import (
    Append, Delete, End, Exit, Figures, Flush, MakeSpace, Recover, Serve, Tidy)
from siltstone_workers.kinds import Kind

from siltstone_workers.checks cimport count_rows, expect_items
from siltstone_workers.credit cimport credit_of

cdef enum:
    #: the part of its window after which a sender is told what was dealt with
    REPORT_PART = 3

cdef int APPEND = Kind.APPEND
cdef int FLUSH = Kind.FLUSH

#: of messages: an id and what is asked
cdef tuple ID = (int,)
cdef tuple ID_LIST = (int, list)
cdef tuple ID_FLAG = (int, bool)


class State(Enum):
    """How far a worker is."""

    GREETED = auto()
    RECOVERED = auto()
    SERVING = auto()
    ENDED = auto()


cdef object is_serving = State.SERVING


cdef class WorkerMachine:
    """One worker, from its greeting on.

    :param shards: those it owns
    :param window: credit that the core has [bytes]
    """

    cdef readonly object state
    cdef object shards
    cdef Py_ssize_t window, credit
    cdef dict sequences, touched_shards

    def __init__(self, shards, Py_ssize_t window):
        self.shards = shards
        self.window = window
        self.state = State.GREETED
        self.sequences = {}
        self.touched_shards = {}

    # ---- events

    def receive(self, message):
        """A message of the core came; what is to be done at once. ProtocolError where it breaks a rule."""
        cdef list fields = message.fields
        cdef int kind = fields[0]
        if kind == APPEND:
            return self.append(fields, message.bulk)
        if kind == FLUSH:
            (request,) = expect_items(fields, ID)
            self.must_be(is_serving, kind)
            return [tuple.__new__(Flush, (request,))]
        return [self.seldom(fields, message.bulk, kind)] if kind != <int>Kind.END else self.end(fields)

    cdef object seldom(self, list fields, bulk, int kind):
        """The instruction of a message of another kind."""
        if kind == <int>Kind.DELETE:
            return self.delete(fields, bulk)
        if kind == <int>Kind.TIDY:
            request, incarnate, begin = expect_items(fields, (int, bool, bool))
            self.must_be(is_serving, kind)
            return Tidy(request, incarnate, begin)
        if kind == <int>Kind.SPACE:
            request, deletes = expect_items(fields, ID_FLAG)
            self.must_be(is_serving, kind)
            return MakeSpace(request, deletes)
        if kind == <int>Kind.FIGURES:
            (request,) = expect_items(fields, ID)
            self.must_be(is_serving, kind)
            return Figures(request)
        if kind == <int>Kind.RECOVER:
            request, clean = expect_items(fields, ID_FLAG)
            self.must_be(State.GREETED, kind)
            superblock = checked_bulk(fields, bulk)
            self.state = State.RECOVERED
            return Recover(request, clean, superblock)
        if kind == <int>Kind.SERVE:
            request, consumed = expect_items(fields, ID_LIST)
            self.must_be(State.RECOVERED, kind)
            types = frozenset([type_id(each) for each in consumed])
            self.state = is_serving
            return Serve(request, types)
        if kind == <int>Kind.EXIT:
            expect_items(fields, ())
            return Exit()
        raise ProtocolError(f"a worker is not sent messages of kind {kind}", rule="kind", value=kind)

    cdef list end(self, list fields):
        (request,) = expect_items(fields, ID)
        self.must_be(is_serving, fields[0])
        self.state = State.ENDED
        return [End(request)]

    def dealt_with(self, instruction):
        """An append or delete was carried out, well or not: its credit is the core's again."""
        self.credit += instruction.credit
        if type(instruction) is Append:
            self.touched_shards[instruction.shard] = instruction.sequence
        else:
            self.touched_shards.setdefault(instruction.shard, self.sequences.get(instruction.shard, 0))

    # ---- reports

    @property
    def has_news(self):
        """Whether anything was dealt with that the core has not been told."""
        return self.credit > 0

    @property
    def must_report(self):
        """Whether the core might wait for credit."""
        return self.credit * REPORT_PART >= self.window

    def report(self):
        """What is to be told now: credit, and for each shard that was touched the last sequence dealt with."""
        credit, self.credit = self.credit, 0
        return credit, self.touched()

    cpdef dict touched(self):
        """The shards that were touched since this was told last, each with the last sequence dealt with."""
        touched, self.touched_shards = self.touched_shards, {}
        return touched

    # ---- inside

    cdef list append(self, list fields, bulk):
        cdef list instructions = [], parts
        cdef Py_ssize_t at = 0, length
        request, sent = expect_items(fields, ID_LIST)
        self.must_be(is_serving, APPEND)
        entries, parts = checked_bulk(fields, bulk), count_rows("batches", sent, 4)
        length = len(entries)
        # That of the message is the first one's.
        more = credit_of(0)
        for shard, sequence, records, size in parts:
            self.must_own(shard)
            last = self.sequences.get(shard, 0)
            if sequence <= last:
                raise ProtocolError(
                    f"shard {shard}: append {sequence} after {last}", rule="sequences rise", value=sequence
                )
            self.sequences[shard] = sequence
            if size > length - at:
                at = -1
                break
            batch = entries[at : at + <Py_ssize_t>size]
            at += <Py_ssize_t>size
            # As Append(...), which is a call of Python.
            instructions.append(tuple.__new__(Append, (request, shard, sequence, records, batch, size + more)))
            more = 0
        if not parts or (request and len(parts) > 1) or at != length:
            raise ProtocolError(f"{len(parts)} batches in {length} bytes", rule="batches", value=len(parts))
        return instructions

    cdef object delete(self, list fields, bulk):
        request, shard, kind, key_size = expect_items(fields, (int, int, int, int))
        self.must_be(is_serving, fields[0])
        self.must_own(shard)
        keys = checked_bulk(fields, bulk)
        type_id(kind)
        if key_size == 0 or len(keys) % key_size:
            raise ProtocolError(
                f"{len(keys)} bytes are no keys of {key_size}", rule="whole keys", value=key_size
            )
        return Delete(request, shard, kind, key_size, keys, credit_of(len(keys)))

    cdef int must_be(self, state, int kind) except -1:
        if self.state is not state:
            raise ProtocolError(
                f"{Kind(kind).name} to a worker that is {self.state.name.lower()}",
                rule="order of messages",
                value=kind,
            )
        return 0

    cdef int must_own(self, shard) except -1:
        if shard not in self.shards:
            raise ProtocolError(f"shard {shard} is another worker's", rule="own shards", value=shard)
        return 0


cdef object checked_bulk(list fields, bulk):
    if bulk is None:
        raise ProtocolError(f"{Kind(fields[0]).name} without bulk", rule="bulk", value=fields[0])
    return bulk


cdef object type_id(value):
    if type(value) is not int or not 0 <= value <= 255:
        raise ProtocolError(f"{value!r:.40} is no type of entries", rule="type id", value=None)
    return value
