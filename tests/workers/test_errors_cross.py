"""Errors that cross a pipe: as themselves, whatever they say; what is no error breaks a rule."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone import errors
from siltstone.errors import (
    DamageError,
    DiskFullError,
    MediumError,
    ProtocolError,
    SiltstoneError,
    WorkerError,
)
from siltstone_workers.decoding import decode_body
from siltstone_workers.encoding import encode_frame
from siltstone_workers.errors import error_from_wire, error_to_wire
from siltstone_workers.frames import MESSAGE_MAX, pack_value, unpack_value

ALL = [getattr(errors, name) for name in errors.__all__]
#: every text of Python, names of files that are no UTF-8 among it
TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
PLAIN = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | TEXT
FACTS = st.dictionaries(
    st.sampled_from(["url", "offset", "cause", "errno", "needed", "what", "state", "rule"]),
    PLAIN | st.binary(max_size=40) | st.lists(PLAIN, max_size=5),
    max_size=8,
)


def crossed(error: BaseException) -> SiltstoneError:
    """An error as it is at the other end, having travelled in a message and as bulk."""
    wire = error_to_wire(error)
    body = b"".join(bytes(piece) for piece in encode_frame([17, 1, wire]))[4:]
    assert unpack_value(memoryview(pack_value(wire))) == decode_body(memoryview(body))[0][2]
    return error_from_wire(decode_body(memoryview(body))[0][2])


@pytest.mark.parametrize("kind", ALL)
@given(message=TEXT, facts=FACTS)
def test_every_error_crosses_as_itself(
    kind: type[SiltstoneError], message: str, facts: dict[str, Any]
) -> None:
    found = crossed(kind(message, **facts))
    assert type(found) is kind
    assert (found.message, found.fields) == (message, facts)
    assert {name: getattr(found, name) for name in facts} == facts
    # It can be kept and passed on, as every error here.
    again = pickle.loads(pickle.dumps(found.to_keep()))
    assert (type(again), again.message, again.fields) == (kind, message, facts)


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError(5, "bad"), KeyboardInterrupt(), RuntimeError("ü" * 9999)]
)
def test_an_error_of_python_becomes_a_worker_error_that_shows_it(error: BaseException) -> None:
    found = crossed(error)
    assert type(found) is WorkerError
    assert type(error).__name__ in found.message
    assert type(error).__name__ in found.cause


def test_a_plugins_own_error_crosses_as_the_nearest_of_ours() -> None:
    class ZonedError(DiskFullError):
        pass

    class Impostor(SiltstoneError):
        pass

    Impostor.__name__ = "DamageError"
    assert type(crossed(ZonedError("no zone", needed=5))) is DiskFullError
    assert crossed(ZonedError("no zone", needed=5)).fields == {"needed": 5}
    assert type(crossed(Impostor("not so"))) is SiltstoneError


def test_facts_of_other_types_cross_as_what_they_show() -> None:
    found = crossed(
        MediumError(
            "failed",
            errno=np.int64(5),
            offset=np.uint64(2**64 - 1),
            huge=1 << 70,
            path=object,
            pair=(1, 2),
            deep=[[[[1]]]],
            map={"a": 1},
        )
    )
    assert found.fields["errno"] == 5
    assert found.fields["offset"] == 2**64 - 1
    assert type(found.fields["errno"]) is int
    assert found.fields["huge"] == hex(1 << 70)
    assert found.fields["pair"] == [1, 2]
    assert "object" in found.fields["path"]
    assert "1" in str(found.fields["deep"])
    assert "'a': 1" in found.fields["map"]


LONG = "long " * 100_000


@pytest.mark.parametrize(
    "error",
    [
        DamageError(LONG),
        DamageError("€" * 100_000, cause="€" * 100_000, what="\udc80" * 100_000),
        DamageError(LONG, **{f"fact_{number}": LONG for number in range(100)}),
        DamageError("bytes", **{f"fact_{number}": bytes(10_000) for number in range(20)}),
        DamageError("lists", found=[[[LONG] * 50] * 50] * 50),
        DamageError("numbers", found=list(range(1 << 20)), huge=1 << 100_000),
        ValueError("€" * 100_000),
    ],
)
def test_an_error_fits_a_message_whatever_it_says(error: Exception) -> None:
    assert len(msgpack.packb(error_to_wire(error), unicode_errors="surrogatepass")) < MESSAGE_MAX // 3
    found = crossed(error)
    assert isinstance(error, ValueError) or type(found) is DamageError
    if isinstance(error, SiltstoneError):
        assert error.message.startswith(found.message)
        assert found.message


# ---- what is none

NOT_OURS = ["", "Exception", "errors", "__class__", "Any", "damageerror", 5, None, ["DamageError"]]
#: what must stay an error's own
OWN = ["self", "message", "fields", "args", "to_keep", "with_traceback", "add_note"]
OWN += ["__class__", "__dict__", "__cause__", "__traceback__", "__reduce__", "__init__"]


@pytest.mark.parametrize(
    "wire",
    [
        None,
        5,
        "DamageError",
        {},
        [],
        ["DamageError"],
        ["DamageError", "message"],
        ["DamageError", "message", {}, 1],
        ["DamageError", None, {}],
        ["DamageError", b"message", {}],
        ["DamageError", "message", None],
        ["DamageError", "message", []],
        ["DamageError", "message", {1: 1}],
        ["DamageError", "message", {b"a": 1}],
        ["DamageError", "message", {"": 1}],
        ["DamageError", "message", {"no name": 1}],
        ["DamageError", "message", {"a" * 65: 1}],
        *([name, "message", {}] for name in NOT_OURS),
        *(["DamageError", "message", {name: 1}] for name in OWN),
        *(["DamageError", "message", {name: {}}] for name in OWN),
    ],
    ids=repr,
)
def test_what_is_no_error_breaks_a_rule(wire: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        error_from_wire(wire)
    assert caught.value.rule == "error"
    assert len(str(caught.value)) < 300


VALUES = st.recursive(
    PLAIN | st.sampled_from([*errors.__all__, *OWN]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(OWN) | TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES | st.tuples(st.sampled_from(errors.__all__), VALUES, VALUES).map(list))
def test_any_value_is_an_error_or_breaks_a_rule(wire: Any) -> None:
    try:
        found = error_from_wire(wire)
    except ProtocolError as error:
        assert error.rule == "error"
    else:
        # A sound one: it can be shown, kept, passed on and raised.
        assert type(found.to_keep()) is type(found)
        assert found.message in str(found)
        with pytest.raises(type(found)):
            raise found
