"""What a worker does next: a state machine without I/O. Messages go in, instructions come out.

A worker greets, recovers its shards, serves them, ends them. It deals with what it is sent in order, and lets one
flush serve all who asked for one while the last was under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from siltstone_workers.checks import expect, rows
from siltstone_workers.errors import ProtocolError
from siltstone_workers.frames import credit_of
from siltstone_workers.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from siltstone_workers.pipes import Message

#: the part of its window after which a sender is told what was dealt with
_REPORT_PART: Final = 3
#: messages that are still dealt with before a flush that somebody waits for
_COVERED_MAX: Final = 256
#: as plain numbers: to look a member of Kind up costs more than to compare it
_APPEND: Final = int(Kind.APPEND)
_FLUSH: Final = int(Kind.FLUSH)


class State(Enum):
    """How far a worker is."""

    GREETED = auto()
    RECOVERED = auto()
    SERVING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Recover:
    """Recover the shards as this superblock has them; answer with what was found."""

    request: int
    clean: bool
    superblock: memoryview


@dataclass(frozen=True, slots=True)
class Serve:
    """Make way and replay; send on the entries of `consumed` types that have no key; answer when done."""

    request: int
    consumed: frozenset[int]


class Append(NamedTuple):
    """Append packed entries as one batch; answer where `request` is not 0."""

    request: int
    shard: int
    sequence: int
    records: int
    entries: memoryview
    credit: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete keys, as one batch; answer with a byte for each: was it there?"""

    request: int
    shard: int
    kind: int
    key_size: int
    keys: memoryview
    credit: int


class Flush(NamedTuple):
    """Flush everything once; answer all of them."""

    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tidy:
    """Pack, or with `incarnate` incarnate, what comes next, from the start where it is to `begin`; answer whether there
    may be more to do."""

    request: int
    incarnate: bool
    begin: bool


@dataclass(frozen=True, slots=True)
class MakeSpace:
    """Free what is dead, however much must be copied for it where it is for deletions; answer whether that gave any."""

    request: int
    deletes: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Answer with the shards in figures."""

    request: int


@dataclass(frozen=True, slots=True)
class End:
    """Take nothing more, flush, answer with where the journals end."""

    request: int


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process."""


Instruction = Recover | Serve | Append | Delete | Flush | Tidy | MakeSpace | Figures | End | Exit


@dataclass(slots=True)
class WorkerMachine:
    """One worker, from its greeting on.

    :param shards: those it owns
    :param window: credit that the core has [bytes]
    """

    shards: Collection[int]
    window: int
    state: State = State.GREETED
    _sequences: dict[int, int] = field(default_factory=dict)
    _flushes: list[int] = field(default_factory=list)
    _since_flush: int = 0
    _credit: int = 0
    _touched: dict[int, int] = field(default_factory=dict)

    # ---- events

    def receive(self, message: Message) -> list[Instruction]:
        """A message of the core came; what is to be done at once. ProtocolError where it breaks a rule."""
        fields = message.fields
        kind = fields[0]
        if self._flushes:
            self._since_flush += 1
        if kind == _APPEND:
            return self._append(message)
        if kind == _FLUSH:
            (request,) = expect(fields, int)
            self._must_be(State.SERVING, kind)
            self._flushes.append(request)
            return []
        if kind == Kind.DELETE:
            return [self._delete(message)]
        if kind == Kind.TIDY:
            request, incarnate, begin = expect(fields, int, bool, bool)
            self._must_be(State.SERVING, kind)
            return [Tidy(request, incarnate, begin)]
        if kind == Kind.SPACE:
            request, deletes = expect(fields, int, bool)
            self._must_be(State.SERVING, kind)
            return [MakeSpace(request, deletes)]
        if kind == Kind.FIGURES:
            (request,) = expect(fields, int)
            self._must_be(State.SERVING, kind)
            return [Figures(request)]
        if kind == Kind.RECOVER:
            request, clean = expect(fields, int, bool)
            self._must_be(State.GREETED, kind)
            self.state = State.RECOVERED
            return [Recover(request, clean, self._bulk(message))]
        if kind == Kind.SERVE:
            request, consumed = expect(fields, int, list)
            self._must_be(State.RECOVERED, kind)
            self.state = State.SERVING
            return [Serve(request, frozenset(_type_id(each) for each in consumed))]
        if kind == Kind.END:
            (request,) = expect(fields, int)
            self._must_be(State.SERVING, kind)
            self.state = State.ENDED
            return [*self.drained(), End(request)]
        if kind == Kind.EXIT:
            expect(fields)
            return [Exit()]
        raise ProtocolError(f"a worker is not sent messages of kind {kind}", rule="kind", value=kind)

    @property
    def must_look(self) -> bool:
        """Whether somebody waits for a flush: what has been read may still be covered, but nothing is waited for."""
        return bool(self._flushes)

    @property
    def flush_is_due(self) -> bool:
        """Whether those who wait for a flush have waited for others long enough."""
        return bool(self._flushes) and self._since_flush >= _COVERED_MAX

    def drained(self) -> list[Instruction]:
        """Nothing more has been read: one flush for all who asked."""
        if not self._flushes:
            return []
        requests, self._flushes = tuple(self._flushes), []
        self._since_flush = 0
        return [Flush(requests)]

    def dealt_with(self, instruction: Append | Delete) -> None:
        """An append or delete was carried out, well or not: its credit is the core's again."""
        self._credit += instruction.credit
        if isinstance(instruction, Append):
            self._touched[instruction.shard] = instruction.sequence
        else:
            self._touched.setdefault(instruction.shard, self._sequences.get(instruction.shard, 0))

    # ---- reports

    @property
    def has_news(self) -> bool:
        """Whether anything was dealt with that the core has not been told."""
        return self._credit > 0

    @property
    def must_report(self) -> bool:
        """Whether the core might wait for credit."""
        return self._credit * _REPORT_PART >= self.window

    def report(self) -> tuple[int, dict[int, int]]:
        """What is to be told now: credit, and for each shard that was touched the last sequence dealt with."""
        credit, self._credit = self._credit, 0
        return credit, self.touched()

    def touched(self) -> dict[int, int]:
        """The shards that were touched since this was told last, each with the last sequence dealt with."""
        touched, self._touched = self._touched, {}
        return touched

    # ---- inside

    def _append(self, message: Message) -> list[Instruction]:
        request, sent = expect(message.fields, int, list)
        self._must_be(State.SERVING, Kind.APPEND)
        entries, parts = self._bulk(message), rows("batches", sent, 4)
        instructions: list[Instruction] = []
        at = 0
        # That of the message is the first one's.
        more = credit_of(0)
        for shard, sequence, records, size in parts:
            self._must_own(shard)
            last = self._sequences.get(shard, 0)
            if sequence <= last:
                raise ProtocolError(
                    f"shard {shard}: append {sequence} after {last}", rule="sequences rise", value=sequence
                )
            self._sequences[shard] = sequence
            batch = entries[at : at + size]
            at += size
            instructions.append(Append(request, shard, sequence, records, batch, size + more))
            more = 0
        if not parts or (request and len(parts) > 1) or at != len(entries):
            raise ProtocolError(
                f"{len(parts)} batches in {len(entries)} bytes", rule="batches", value=len(parts)
            )
        return instructions

    def _delete(self, message: Message) -> Delete:
        request, shard, kind, key_size = expect(message.fields, int, int, int, int)
        self._must_be(State.SERVING, Kind.DELETE)
        self._must_own(shard)
        keys = self._bulk(message)
        _type_id(kind)
        if key_size == 0 or len(keys) % key_size:
            raise ProtocolError(
                f"{len(keys)} bytes are no keys of {key_size}", rule="whole keys", value=key_size
            )
        return Delete(request, shard, kind, key_size, keys, credit_of(len(keys)))

    def _must_be(self, state: State, kind: int) -> None:
        if self.state is not state:
            raise ProtocolError(
                f"{Kind(kind).name} to a worker that is {self.state.name.lower()}",
                rule="order of messages",
                value=kind,
            )

    def _must_own(self, shard: int) -> None:
        if shard not in self.shards:
            raise ProtocolError(f"shard {shard} is another worker's", rule="own shards", value=shard)

    @staticmethod
    def _bulk(message: Message) -> memoryview:
        if message.bulk is None:
            raise ProtocolError(
                f"{Kind(message.fields[0]).name} without bulk", rule="bulk", value=message.fields[0]
            )
        return message.bulk


def _type_id(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise ProtocolError(f"{value!r:.40} is no type of entries", rule="type id", value=None)
    return value
