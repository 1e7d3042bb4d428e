"""Messages: what is told crosses unchanged; what is malformed breaks the rule that is named for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import DamageError, DiskFullError, ProtocolError
from siltstone.format.seal import End, Position
from siltstone.format.superblock import SHARDS_MAX, Part
from siltstone.journal.recovery import JournalRecovery
from siltstone.shard.changes import (
    Filled,
    Give,
    Incarnate,
    JournalEnd,
    Merge,
    Narrowed,
    Pack,
    Packed,
    Reserve,
    Roll,
    Rolled,
    Settle,
    Settled,
    TakeEmpty,
    TakeFresh,
    TakeHashStore,
    TakeNext,
)
from siltstone.shard.checkpoint_changes import GiveCheckpoints, PublishCheckpoints, TakeCheckpoints
from siltstone.shard.figures import ShardFigures
from siltstone_workers.change_values import change_from_wire, change_to_wire
from siltstone_workers.checks import expect, rows
from siltstone_workers.decoding import decode_body
from siltstone_workers.encoding import encode_frame
from siltstone_workers.errors import error_to_wire
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import (
    Failures,
    ends_from_wire,
    ends_to_wire,
    failures_from_wire,
    failures_to_wire,
    figures_from_wire,
    figures_to_wire,
    recoveries_from_wire,
    recoveries_to_wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = st.integers(0, 2**64 - 1)
MAYBE = st.none() | COUNTS
ENDS = st.builds(End, COUNTS, COUNTS, MAYBE, COUNTS)
POSITIONS = st.builds(Position, COUNTS, COUNTS)
PAIRS = st.lists(st.tuples(COUNTS, COUNTS), max_size=4, unique_by=lambda pair: pair[0]).map(tuple)
ROLLED = st.builds(Rolled, COUNTS, MAYBE, st.none() | ENDS, MAYBE)
SETTLED = st.builds(Settled, COUNTS, MAYBE, MAYBE, st.none() | ENDS, st.booleans())
PARTS = st.integers(1, 1 << 40).flatmap(
    lambda entries: st.builds(Part, st.integers(0, (1 << 64) - 1), st.just(entries), st.integers(0, entries))
)
FILLED = st.builds(Filled, COUNTS, COUNTS, PARTS)
CHANGES = st.one_of(
    st.builds(TakeNext, PAIRS),
    st.builds(TakeEmpty, COUNTS, COUNTS, st.booleans()),
    st.builds(TakeCheckpoints, PAIRS),
    st.builds(PublishCheckpoints, PAIRS),
    st.builds(GiveCheckpoints, PAIRS),
    st.builds(TakeFresh, st.lists(COUNTS, max_size=5).map(tuple), st.booleans()),
    st.builds(Give, COUNTS, COUNTS),
    st.builds(Reserve, COUNTS),
    st.builds(Roll, st.lists(ROLLED, max_size=4, unique_by=lambda one: one.shard).map(tuple)),
    st.builds(Settle, st.lists(SETTLED, max_size=4).map(tuple)),
    st.builds(TakeHashStore, COUNTS, COUNTS, st.booleans()),
    st.builds(
        Incarnate,
        COUNTS,
        st.lists(COUNTS, max_size=4).map(tuple),
        st.lists(st.builds(Packed, COUNTS, ENDS), max_size=4).map(tuple),
        st.lists(FILLED, max_size=3).map(tuple),
        st.lists(COUNTS, max_size=4).map(tuple),
    ),
    st.builds(
        Merge,
        COUNTS,
        COUNTS,
        st.lists(COUNTS, max_size=4).map(tuple),
        st.lists(st.builds(Narrowed, COUNTS, PARTS), max_size=3).map(tuple),
        st.none() | FILLED,
    ),
    st.builds(
        Pack,
        COUNTS,
        st.lists(COUNTS, max_size=4).map(tuple),
        st.lists(st.builds(Packed, COUNTS, ENDS), max_size=4).map(tuple),
    ),
)
TEXT = st.text(st.characters(codec=None, categories=None), max_size=30)
RECOVERIES = st.builds(JournalRecovery, COUNTS, COUNTS, ENDS, POSITIONS, COUNTS, COUNTS, COUNTS, TEXT)
JOURNAL_ENDS = st.builds(JournalEnd, COUNTS, COUNTS, ENDS, st.booleans())
FIGURES = st.builds(ShardFigures, COUNTS, COUNTS, COUNTS, COUNTS, MAYBE, st.none() | POSITIONS, MAYBE)
PROGRESS = st.lists(COUNTS, min_size=4, max_size=4)


def sent(value: Any) -> Any:
    return unpack_value(memoryview(pack_value(value)))


# ---- round trips


@given(CHANGES)
def test_a_change_crosses_unchanged(change: Any) -> None:
    assert change_from_wire(sent(change_to_wire(change))) == change


@given(st.lists(RECOVERIES, max_size=3), st.lists(JOURNAL_ENDS, max_size=3), st.lists(FIGURES, max_size=3))
def test_what_a_worker_found_crosses_unchanged(
    recoveries: list[JournalRecovery], ends: list[JournalEnd], figures: list[ShardFigures]
) -> None:
    assert recoveries_from_wire(sent(recoveries_to_wire(recoveries))) == recoveries
    found, failures = ends_from_wire(sent(ends_to_wire(ends, FAILURES)))
    assert found == ends
    assert ends_from_wire(sent(ends_to_wire(ends, Failures()))) == (ends, Failures())
    for told in (failures, failures_from_wire(sent(failures_to_wire(FAILURES)))):
        assert (told.number, str(told.last)) == (3, "no space for it")
    assert figures_from_wire(sent(figures_to_wire(figures))) == figures


@given(COUNTS, COUNTS, st.lists(PROGRESS, max_size=4))
def test_news_cross_unchanged(number: int, credit: int, shards: list[list[int]]) -> None:
    body = b"".join(bytes(each) for each in encode_frame([Kind.PROGRESS, credit, number, shards]))
    fields, _bulk = decode_body(memoryview(body)[4:])
    *numbers, told = expect(fields, int, int, list)
    assert (numbers, rows("progress", told, 4)) == ([credit, number], shards)


def test_news_of_as_many_shards_as_a_store_may_have_fit_a_message_with_an_error() -> None:
    error = error_to_wire(DamageError("€" * 9999, **{f"fact_{number}": "x" * 999 for number in range(99)}))
    shards = [[shard, 2**64 - 1, 2**64 - 1, 2**64 - 1] for shard in range(SHARDS_MAX)]
    reply = [Kind.REPLY, 2**64 - 1, error, 2**64 - 1, 2**64 - 1, shards]
    body = b"".join(bytes(each) for each in encode_frame(reply))
    assert decode_body(memoryview(body)[4:])[0] == reply


# ---- what is malformed

FAILURES = Failures(3, DiskFullError("no space for it"))
READERS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "change": (
        change_from_wire,
        [
            change_to_wire(change)
            for change in (
                TakeEmpty(1, 65536, False),
                TakeNext(((1, 65536),)),
                TakeFresh((1,), True),
                Give(1, 2),
                TakeCheckpoints(((1, 65536),)),
                PublishCheckpoints(((1, 5),)),
                Reserve(1),
                Roll((Rolled(1, 2, End(3, 4, None, 5), 6),)),
                Roll((Rolled(1, 2, End(3, 4, None, 5), 6),), ((1, 65536),)),
                Settle((Settled(1, 2, 3, End(4, 5, 0, 6), False),)),
            )
        ],
    ),
    "recoveries": (
        recoveries_from_wire,
        [recoveries_to_wire([JournalRecovery(1, 2, End(3, 4, 1, 5), Position(6, 7), 8, 9, 10, "torn")])],
    ),
    "ends": (ends_from_wire, [ends_to_wire([JournalEnd(1, 2, End(3, 4, None, 5), True)], FAILURES)]),
    "failures": (failures_from_wire, [failures_to_wire(FAILURES)]),
    "figures": (figures_from_wire, [figures_to_wire([ShardFigures(1, 2, 3, 4, 5, Position(6, 7))])]),
    "progress": (lambda value: rows("progress", value, 4), [[[1, 2, 3, 4]]]),
}

#: an error in it is a value of its own
RULES = {"ends": {"ends", "error"}, "failures": {"failures", "error"}}

#: what no field of any of them may be
WRONG = [-1, 1.0, "12", b"\x01\x02", {0: 1, 1: 2}, [[[]]], [-1], object()]


def spoiled(value: Any) -> list[Any]:
    """The value with, one at a time, each of its parts replaced, missing or doubled."""
    found: list[Any] = [wrong for wrong in WRONG if type(wrong) is not str or type(value) is not str]
    if isinstance(value, list):
        for at, item in enumerate(value):
            found += [[*value[:at], worse, *value[at + 1 :]] for worse in spoiled(item)]
    return found


def resized(value: Any) -> list[Any]:
    """The value with, one at a time, each of its lists of several items one longer or shorter.

    Lists that may have any length have one item here.
    """
    found: list[Any] = []
    if isinstance(value, list):
        if len(value) > 1:
            found += [value[:-1], [*value, value[-1]]]
        for at, item in enumerate(value):
            found += [[*value[:at], worse, *value[at + 1 :]] for worse in resized(item)]
    return found


@pytest.mark.parametrize("what", READERS)
def test_every_part_of_the_wrong_kind_breaks_a_rule(what: str) -> None:
    read, values = READERS[what]
    for value in map(sent, values):
        assert read(value)
        for wrong in spoiled(value):
            with pytest.raises(ProtocolError) as caught:
                pytest.fail(f"{wrong!r} was taken for {read(wrong)!r}")
            assert caught.value.rule in RULES.get(what, {what})
            assert len(str(caught.value)) < 500


@pytest.mark.parametrize("what", READERS)
def test_a_part_too_many_or_too_few_breaks_a_rule(what: str) -> None:
    read, values = READERS[what]
    for value in map(sent, values):
        for wrong in resized(value):
            with pytest.raises(ProtocolError) as caught:
                pytest.fail(f"{wrong!r} was taken for {read(wrong)!r}")
            assert caught.value.rule in RULES.get(what, {what})


@pytest.mark.parametrize("name", ["CleanClose", "", "replace", "__class__", 3, None, ["Give"], b"Give"])
def test_a_change_that_no_shard_makes_breaks_a_rule(name: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        change_from_wire([name, [1, 2]])
    assert caught.value.rule == "change"


@pytest.mark.parametrize(
    "change",
    [
        TakeNext(((1, 65536), (2, 65536), (1, 65536))),
        TakeCheckpoints(((1, 65536), (1, 65536))),
        PublishCheckpoints(((1, 5), (1, 6))),
        Roll((Rolled(1, 2, End(3, 4, None, 5), 6), Rolled(1, 6, End(3, 4, None, 5), 7))),
        Roll((Rolled(1, 2, End(3, 4, None, 5), 6),), ((2, 65536), (2, 65536))),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_change_of_one_shard_twice_breaks_a_rule(change: Any) -> None:
    """As often as a message has room for it would keep the core busy for very long."""
    with pytest.raises(ProtocolError, match="twice") as caught:
        change_from_wire(sent(change_to_wire(change)))
    assert caught.value.rule == "change"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**64 - 1) | st.floats() | TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.integers(0, 3) | TEXT, inner, max_size=3),
    max_leaves=20,
)
NAMES = st.sampled_from(
    [
        "TakeEmpty",
        "TakeFresh",
        "Give",
        "Reserve",
        "Roll",
        "Settle",
        "Pack",
        "TakeHashStore",
        "TakeNext",
        "Incarnate",
        "Merge",
        "TakeCheckpoints",
        "GiveCheckpoints",
    ]
)


@given(JUNK | st.tuples(NAMES, JUNK).map(list))
def test_any_value_is_read_or_breaks_a_rule(value: Any) -> None:
    for what, (read, _values) in READERS.items():
        try:
            read(value)
        except ProtocolError as error:
            assert error.rule == what


# ---- items of a message


@pytest.mark.parametrize(
    ("items", "kinds"),
    [
        ([], ()),
        ([0], (int,)),
        ([True], (bool,)),
        ([[], None], (list, (list, None))),
        ([[], [1]], (list, (list, None))),
        (["a", b"b"], (str, bytes)),
    ],
)
def test_items_of_the_right_types_are_given_out(items: list[Any], kinds: Any) -> None:
    assert expect([Kind.FLUSH, *items], *kinds) == items


@pytest.mark.parametrize(
    ("items", "kinds"),
    [
        ([1], ()),
        ([], (int,)),
        ([-1], (int,)),
        ([True], (int,)),
        ([1.0], (int,)),
        ([1], (bool,)),
        ([None], (list,)),
        ([0], ((list, None),)),
        ([{}], (list,)),
        ([1, 2], (int,)),
    ],
)
def test_items_of_other_types_break_a_rule(items: list[Any], kinds: Any) -> None:
    for kind, name in ((Kind.FLUSH, "FLUSH"), (99, "99")):
        with pytest.raises(ProtocolError) as caught:
            expect([kind, *items], *kinds)
        assert name in caught.value.rule
