"""A worker's state machine: each message in each state is carried out as it must be, or breaks a named rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import ProtocolError
from siltstone_workers import machine
from siltstone_workers.frames import credit_of
from siltstone_workers.instructions import (
    Append,
    Delete,
    End,
    Exit,
    Figures,
    Flush,
    MakeSpace,
    Recover,
    Serve,
    Tidy,
)
from siltstone_workers.kinds import Kind
from siltstone_workers.machine import State, WorkerMachine
from siltstone_workers.pipes import Message

WINDOW = 4096
GOOD: dict[Kind, tuple[list[Any], bytes | None]] = {
    Kind.RECOVER: ([1, True], b"superblock"),
    Kind.SERVE: ([2, [9, 200]], None),
    Kind.APPEND: ([0, [[3, 1, 5, 7]]], b"entries"),
    Kind.DELETE: ([4, 3, 2, 4], b"key1key2"),
    Kind.FLUSH: ([5], None),
    Kind.FIGURES: ([6], None),
    Kind.TIDY: ([8, True, False], None),
    Kind.SPACE: ([9, True], None),
    Kind.END: ([7], None),
    Kind.EXIT: ([], None),
}
#: which state a message is for, and which it leads to
MOVES = {
    Kind.RECOVER: (State.GREETED, State.RECOVERED),
    Kind.SERVE: (State.RECOVERED, State.SERVING),
    Kind.APPEND: (State.SERVING, State.SERVING),
    Kind.DELETE: (State.SERVING, State.SERVING),
    Kind.FLUSH: (State.SERVING, State.SERVING),
    Kind.FIGURES: (State.SERVING, State.SERVING),
    Kind.TIDY: (State.SERVING, State.SERVING),
    Kind.SPACE: (State.SERVING, State.SERVING),
    Kind.END: (State.SERVING, State.ENDED),
}


def message(kind: int, items: list[Any], bulk: bytes | None = None) -> Message:
    return Message([int(kind), *items], None if bulk is None else memoryview(bulk))


def good(kind: Kind) -> Message:
    return message(kind, *GOOD[kind])


def worker_in(state: State) -> WorkerMachine:
    worker = WorkerMachine(frozenset({3, 5}), WINDOW)
    for kind in (Kind.RECOVER, Kind.SERVE, Kind.END):
        if worker.state is not state:
            worker.receive(good(kind))
    assert worker.state is state
    return worker


def append(sequence: int, shard: int = 3, size: int = 10) -> Message:
    return batches([shard, sequence, 1, size])


def batches(*parts: list[Any], request: int = 0, size: int | None = None) -> Message:
    """An APPEND of (shard, sequence, records, bytes) each."""
    whole = sum(part[3] for part in parts) if size is None else size
    return message(Kind.APPEND, [request, list(parts)], bytes(whole))


def carry_out(worker: WorkerMachine, told: Message) -> None:
    (instruction,) = worker.receive(told)
    assert isinstance(instruction, Append | Delete)
    worker.dealt_with(instruction)


def broken_rule(worker: WorkerMachine, told: Message) -> str:
    with pytest.raises(ProtocolError) as caught:
        worker.receive(told)
    return str(caught.value.rule)


# ---- every state, every message


@pytest.mark.parametrize("state", State)
def test_each_message_in_each_state_is_taken_or_breaks_a_rule(state: State) -> None:
    for kind in range(256):
        worker = worker_in(state)
        if kind not in GOOD:
            assert broken_rule(worker, message(kind, [1])) == "kind"
        elif kind == Kind.EXIT:
            assert worker.receive(good(Kind.EXIT)) == [Exit()]
        elif state is MOVES[Kind(kind)][0]:
            worker.receive(good(Kind(kind)))
            assert worker.state is MOVES[Kind(kind)][1]
        else:
            assert broken_rule(worker, good(Kind(kind))) == "order of messages"
            assert worker.state is state


def test_each_message_becomes_the_instruction_that_it_asks_for() -> None:
    worker = worker_in(State.GREETED)
    assert worker.receive(good(Kind.RECOVER)) == [Recover(1, True, memoryview(b"superblock"))]
    assert worker.receive(good(Kind.SERVE)) == [Serve(2, frozenset({9, 200}))]
    entries, keys = memoryview(b"entries"), memoryview(b"key1key2")
    assert worker.receive(good(Kind.APPEND)) == [Append(0, 3, 1, 5, entries, credit_of(7))]
    assert worker.receive(good(Kind.DELETE)) == [Delete(4, 3, 2, 4, keys, credit_of(8))]
    assert worker.receive(good(Kind.FLUSH)) == [Flush(5)]
    assert worker.receive(good(Kind.FIGURES)) == [Figures(6)]
    assert worker.receive(good(Kind.TIDY)) == [Tidy(8, True, False)]
    assert worker.receive(good(Kind.SPACE)) == [MakeSpace(9, True)]
    assert worker.receive(good(Kind.END)) == [End(7)]
    assert worker.receive(good(Kind.EXIT)) == [Exit()]


@pytest.mark.parametrize("kind", GOOD)
def test_each_message_with_other_items_breaks_a_rule(kind: Kind) -> None:
    items, bulk = GOOD[kind]
    state = MOVES[kind][0] if kind in MOVES else State.SERVING
    spoiled = [[*items, 1], *([items[:-1]] if items else [])]
    for at in range(len(items)):
        spoiled += [[*items[:at], wrong, *items[at + 1 :]] for wrong in (-1, "1", None, 1.0, {})]
    for wrong in spoiled:
        assert broken_rule(worker_in(state), message(kind, wrong, bulk)) == f"items of {kind.name}"
    if bulk is not None:
        assert broken_rule(worker_in(state), message(kind, items)) == "bulk"


BROKEN = [
    ("sequences rise", append(0)),
    ("sequences rise", append(7)),
    ("own shards", append(9, shard=4)),
    ("own shards", message(Kind.DELETE, [1, 4, 2, 4], b"key1")),
    ("whole keys", message(Kind.DELETE, [1, 3, 2, 0], b"key1")),
    ("whole keys", message(Kind.DELETE, [1, 3, 2, 3], b"key1")),
    ("type id", message(Kind.DELETE, [1, 3, 256, 4], b"key1")),
    ("own shards", batches([3, 8, 1, 5], [4, 1, 1, 5])),
    ("sequences rise", batches([3, 8, 1, 5], [5, 1, 1, 5], [3, 8, 1, 5])),
    ("bulk", message(Kind.APPEND, [0, [[3, 9, 1, 5]]])),
    ("batches", batches()),
    ("batches", batches([3, 8, 1, 5], size=4)),
    ("batches", batches([3, 8, 1, 5], size=6)),
    ("batches", batches([3, 8, 1, (1 << 64) - 1], size=6)),
    ("batches", batches([3, 8, 1, 3], [5, 1, 1, (1 << 64) - 3], size=6)),
    ("batches", batches([3, 8, 1, 5], [5, 1, 1, 5], size=5)),
    # Who waits for an answer waits for one batch.
    ("batches", batches([3, 8, 1, 5], [5, 1, 1, 5], request=1)),
    *(
        ("batches", batches(part, size=5))
        for part in ([3, 8, 1], [3, 8, 1, 5, 0], [3, 8, 1, -5], [3, 8, True, 5], ["3", 8, 1, 5])
    ),
    ("order of messages", good(Kind.SERVE)),
    ("kind", message(Kind.HELLO, [1])),
]


@pytest.mark.parametrize(("rule", "told"), BROKEN)
def test_what_a_serving_worker_cannot_be_asked_breaks_a_rule(rule: str, told: Message) -> None:
    worker = worker_in(State.SERVING)
    worker.receive(append(7))
    assert broken_rule(worker, told) == rule


@pytest.mark.parametrize("consumed", [[256], [-1], ["9"], [True], [None], [[]]])
def test_what_is_no_type_of_entries_is_not_consumed(consumed: list[Any]) -> None:
    assert broken_rule(worker_in(State.RECOVERED), message(Kind.SERVE, [1, consumed])) == "type id"


def test_every_rule_of_the_machine_is_broken_above() -> None:
    source = Path(str(machine.__file__)).with_name("machine.pyx").read_text()
    # What a message is made of has rules of its own, which checks.pyx names.
    named = set(re.findall(r'rule="([^"]*)"', source)) | set(re.findall(r'count_rows\("([^"]*)"', source))
    assert named == {rule for rule, _told in BROKEN}


# ---- flushes, credit, sequences


def test_each_flush_comes_in_its_place() -> None:
    worker = worker_in(State.SERVING)
    told = [append(1), message(Kind.FLUSH, [11]), message(Kind.FLUSH, [12]), append(2)]
    done = [each for one in told for each in worker.receive(one)]
    assert [type(each) for each in done] == [Append, Flush, Flush, Append]
    assert done[1:3] == [Flush(11), Flush(12)]


def test_batches_of_several_shards_become_an_append_each_with_its_part_of_the_bulk() -> None:
    worker = worker_in(State.SERVING)
    told = message(Kind.APPEND, [0, [[5, 1, 1, 3], [3, 4, 2, 2], [5, 2, 1, 0]]], b"abcde")
    first, second, third = worker.receive(told)
    assert isinstance(first, Append)
    assert isinstance(second, Append)
    assert isinstance(third, Append)
    assert [bytes(each.entries) for each in (first, second, third)] == [b"abc", b"de", b""]
    assert [(each.shard, each.sequence, each.records) for each in (first, second, third)] == [
        (5, 1, 1),
        (3, 4, 2),
        (5, 2, 1),
    ]
    # All of a message's credit once all of it was dealt with.
    assert first.credit + second.credit + third.credit == credit_of(5)
    for each in (first, second, third):
        worker.dealt_with(each)
    assert worker.report() == (credit_of(5), {5: 2, 3: 4})


def test_sequences_of_shards_are_their_own() -> None:
    worker = worker_in(State.SERVING)
    carry_out(worker, append(5, shard=3))
    carry_out(worker, append(2, shard=5))
    carry_out(worker, append(9, shard=3))
    assert worker.report()[1] == {3: 9, 5: 2}


def test_a_delete_reports_the_appends_before_it() -> None:
    worker = worker_in(State.SERVING)
    carry_out(worker, good(Kind.DELETE))
    assert worker.report() == (credit_of(8), {3: 0})
    carry_out(worker, append(4))
    worker.report()
    carry_out(worker, good(Kind.DELETE))
    assert worker.report()[1] == {3: 4}


@given(st.lists(st.tuples(st.sampled_from([3, 5]), st.integers(0, 1500), st.booleans()), max_size=40))
def test_the_credit_of_every_message_is_given_back_once_it_was_dealt_with(
    sent: list[tuple[int, int, bool]],
) -> None:
    worker = worker_in(State.SERVING)
    owed = reported = 0
    for sequence, (shard, size, report) in enumerate(sent, 1):
        owed += credit_of(size)
        carry_out(worker, append(sequence, shard, size))
        assert worker.has_news
        # The core may wait for as much as a window: it must not be kept waiting until that is used up.
        assert worker.must_report or owed - reported < WINDOW
        if report:
            credit, touched = worker.report()
            reported += credit
            assert touched[shard] == sequence
            assert reported == owed
            assert not worker.has_news
            assert not worker.must_report
            assert worker.report() == (0, {})
    reported += worker.report()[0]
    assert reported == owed


@given(st.lists(st.sampled_from(sorted(GOOD)) | st.integers(0, 30), max_size=25))
def test_any_run_of_messages_is_taken_or_ends_in_a_rule(kinds: list[int]) -> None:
    worker = worker_in(State.GREETED)
    state, asked, flushed = State.GREETED, [], []
    for sequence, kind in enumerate(kinds, 1):
        if kind == Kind.APPEND:
            told = append(sequence)
        else:
            items, bulk = GOOD.get(kind, ([1], None))  # type: ignore[call-overload]
            told = message(kind, [sequence] if kind == Kind.FLUSH else items, bulk)
        try:
            instructions = worker.receive(told)
        except ProtocolError as error:
            assert error.rule in ("kind", "order of messages")
            assert kind not in MOVES or MOVES[Kind(kind)][0] is not state
            return
        state = MOVES[Kind(kind)][1] if kind in MOVES else state
        assert worker.state is state
        if kind == Kind.FLUSH:
            asked.append(sequence)
        flushed += [each.request for each in instructions if isinstance(each, Flush)]
        assert flushed == asked
