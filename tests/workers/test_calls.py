"""What a worker asks its core: whoever waits reads for all, answers find who asked, and credit lets send."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pipe_pairs import PATIENCE_S, Task, pipe

from siltstone.errors import DamageError, ProtocolError
from siltstone_workers.calls import Calls
from siltstone_workers.errors import error_to_wire
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import ChannelClosedError
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator


class Core:
    """The other end of the calls of a worker."""

    def __init__(self) -> None:
        to_worker, from_core = pipe()
        to_core, from_worker = pipe()
        self.sender, self.receiver = Sender(from_core), Receiver(to_core)
        self._theirs = Receiver(to_worker), Sender(from_worker)
        self.calls = Calls(*self._theirs)
        self.window = self._theirs[1].window

    def heard(self) -> Any:
        """The next that the worker said."""
        message = self.receiver.receive(PATIENCE_S)
        assert message is not None
        return message

    def close(self) -> None:
        for end in (self.sender, self.receiver, *self._theirs):
            end.close()


@contextmanager
def connected() -> Iterator[Core]:
    core = Core()
    try:
        yield core
    finally:
        core.close()


def request_of(message: Any) -> int:
    return int(message.fields[1])


# ---- answers


def test_a_call_is_sent_and_answered_whatever_comes_between() -> None:
    with connected() as core:
        calling = Task(lambda: core.calls.call(Kind.PUBLISH, False, bulk=b"change"))
        asked = core.heard()
        assert asked.fields == [Kind.PUBLISH, request_of(asked), False]
        assert bytes(asked.bulk) == b"change"
        for _ in range(50):
            core.sender.send([Kind.CREDIT, 1])
        core.sender.send([Kind.REPLY, request_of(asked), None], b"superblock")
        error, bulk = calling.result()
        assert error is None
        assert bytes(bulk) == b"superblock"


def test_answers_find_who_asked_in_whatever_order_they_come() -> None:
    with connected() as core:
        calls = [Task(lambda n=number: core.calls.call(Kind.PUBLISH, n)) for number in range(8)]
        asked = {message.fields[2]: request_of(message) for message in (core.heard() for _ in calls)}
        assert len(set(asked.values())) == 8
        for number in sorted(asked, key=lambda number: (number % 3, -number)):
            wire = error_to_wire(DamageError(f"bad {number}", offset=number)) if number % 2 else None
            core.sender.send([Kind.REPLY, asked[number], wire], b"%d" % number)
        for number, call in enumerate(calls):
            error, bulk = call.result()
            assert bytes(bulk) == b"%d" % number
            if number % 2:
                assert type(error) is DamageError
                assert error.offset == number
            else:
                assert error is None


@pytest.mark.parametrize("half", [b"", b"\x00\x00"])
def test_the_end_of_the_pipe_wakes_everybody(half: bytes) -> None:
    with connected() as core:
        waiting = [Task(lambda: core.calls.call(Kind.PUBLISH, True)) for _ in range(3)]
        for _ in waiting:
            core.heard()
        if half:
            core.sender.write([half], 0)
        core.sender.close()
        for task in waiting:
            with pytest.raises(ProtocolError if half else ChannelClosedError):
                task.result()
        # And whoever comes later.
        with pytest.raises(ProtocolError if half else ChannelClosedError):
            core.calls.call(Kind.PUBLISH, True)


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ([Kind.REPLY, 99, None], "answers"),
        ([Kind.REPLY, 0, None], "answers"),
        ([Kind.REPLY, 1], "items of REPLY"),
        ([Kind.REPLY, 1, "no"], "items of REPLY"),
        ([Kind.CREDIT], "items of CREDIT"),
        ([Kind.CREDIT, -1], "items of CREDIT"),
        ([Kind.FLUSH, 1], "kind"),
    ],
)
def test_what_breaks_a_rule_ends_it_for_everybody(told: list[Any], rule: str) -> None:
    with connected() as core:
        calling = [Task(lambda: core.calls.call(Kind.PUBLISH, True)) for _ in range(2)]
        for _ in calling:
            core.heard()
        core.sender.send(told)
        for task in calling:
            with pytest.raises(ProtocolError) as caught:
                task.result()
            assert caught.value.rule == rule


def test_an_answer_comes_once() -> None:
    with connected() as core:
        calling = Task(lambda: core.calls.call(Kind.PUBLISH, True))
        asked = core.heard()
        for _ in range(2):
            core.sender.send([Kind.REPLY, request_of(asked), None])
        assert calling.result() == (None, None)
        with pytest.raises(ProtocolError) as caught:
            core.calls.call(Kind.PUBLISH, True)
        assert caught.value.rule == "answers"


# ---- credit


def test_a_counted_send_waits_for_credit_and_reads_while_it_does() -> None:
    with connected() as core:
        core.calls.send_counted([Kind.ENTRIES, 0], bytes(core.window))
        assert core.heard().fields == [Kind.ENTRIES, 0]
        sending = Task(lambda: core.calls.send_counted([Kind.ENTRIES, 1], b"more"))
        core.sender.send([Kind.CREDIT, 0])
        # It is read, by whoever is at it, and the send has not been let go by it.
        calling = Task(lambda: core.calls.call(Kind.PUBLISH, True))
        core.sender.send([Kind.REPLY, request_of(core.heard()), None])
        assert calling.result() == (None, None)
        assert not sending.has_ended
        core.sender.send([Kind.CREDIT, 1])
        sending.result()
        assert core.heard().fields == [Kind.ENTRIES, 1]


def test_one_credit_lets_one_of_several_go() -> None:
    with connected() as core:
        core.calls.send_counted([Kind.ENTRIES, 0], bytes(core.window))
        core.heard()
        tasks = [Task(lambda: core.calls.send_counted([Kind.ENTRIES, 1], b"12")) for _ in range(4)]
        for left in range(4, 0, -1):
            # What the last one took beyond its credit has to be made up for first.
            core.sender.send([Kind.CREDIT, 1 if left == 4 else 2])
            core.heard()
            assert core.receiver.receive(0.0) is None
            assert sum(not task.has_ended for task in tasks) >= left - 1
        for task in tasks:
            task.result()


def test_an_end_of_the_pipe_wakes_who_waits_for_credit() -> None:
    with connected() as core:
        core.calls.send_counted([Kind.ENTRIES, 0], bytes(core.window))
        sending = Task(lambda: core.calls.send_counted([Kind.ENTRIES, 1], b"more"))
        core.sender.close()
        with pytest.raises(ChannelClosedError):
            sending.result()
