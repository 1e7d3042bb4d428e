"""The records of plugins check themselves, and the conformance suite finds what they cannot see."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from siltstone.errors import EntryError, PluginError
from siltstone.plugin import BackendType, Consumer, EntryType
from siltstone.plugin.types import PAYLOAD_SIZE_MAX
from siltstone.testing.entry_type import EntryTypeConformance

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Reference:
    """A record."""

    block: bytes
    count: int


def encode(reference: Reference) -> bytes:
    return struct.pack(">16sI", reference.block, reference.count)


def decode(payload: bytes) -> Reference:
    return Reference(*struct.unpack(">16sI", payload))


DECLARATION: dict[str, Any] = {
    "id": 0x42,
    "name": "reference",
    "version": 1,
    "record": Reference,
    "encode": encode,
    "decode": decode,
    "fields": (("block", "V16"), ("count", ">u4")),
    "key": (0, 16),
}
EXAMPLES = (Reference(b"0123456789abcdef", 1), Reference(bytes(16), 0), Reference(b"\xff" * 16, 2**32 - 1))


def declare(**changes: Any) -> EntryType:
    return EntryType(**(DECLARATION | changes))


# ---- what a declaration may say


@pytest.mark.parametrize("id", [0x02, 0x10, 0x42, 0xEF])
def test_ids_that_plugins_may_take(id: int) -> None:  # noqa: A002
    assert declare(id=id).id == id


@pytest.mark.parametrize(
    "id", [-1, *range(2), *range(3, 0x10), *range(0xF0, 0x102), True, "0x42", None, 66.0]
)
def test_reserved_ids_are_refused(id: Any) -> None:  # noqa: A002
    with pytest.raises(PluginError, match=r"reference.*id .* is not in 0x10-0xef"):
        declare(id=id)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "Reference"},
        {"name": "9lives"},
        {"name": "a" * 64},
        {"name": "line\n"},
        {"name": None},
        {"version": 0},
        {"version": 65536},
        {"version": True},
        {"version": "1"},
        {"record": "Reference"},
        {"encode": None},
        {"decode": b""},
        {"fields": ()},
        {"fields": 7},
        {"fields": ("block",)},
        {"fields": (("block", "V16", ()), ("count", ">u4", 1))},
        {"fields": (("block", "V16"), ("count", np.uint32))},
        {"fields": (("block", "V16"), ("block", ">u4"))},
        {"fields": (("block", "V253"),)},
        {"fields": (("block", "V999999999999"),)},
        {"fields": (("block", "no such type"),)},
        {"fields": (("block", "O"),)},
        {"fields": (("block", "S16"), ("count", ">u4"))},
        {"fields": (("block", "V16"), ("count", "<u4"))},
        {"fields": (("block", "V16"), ("count", "u4"))},
        {"fields": (("block", "V16"), ("count", "4u1"))},
        {"fields": (("block", "V0"), ("count", ">u4"))},
        {"key": 16},
        {"key": (0,)},
        {"key": (0, 16, 32)},
        {"key": ("0", 16)},
        {"key": (-1, 16)},
        {"key": (0, 0)},
        {"key": (5, 16)},
        {"key": (0, 21)},
        {"key": (0, PAYLOAD_SIZE_MAX), "fields": None},
        {"key": (1, PAYLOAD_SIZE_MAX), "fields": None},
    ],
    ids=repr,
)
def test_a_wrong_declaration_names_the_type_and_the_field(changes: dict[str, Any]) -> None:
    with pytest.raises(PluginError) as caught:
        declare(**changes)
    field = "fields" if "fields" in changes and changes["fields"] is not None else next(iter(changes))
    assert field in str(caught.value)
    assert repr(changes.get("name", "reference")) in str(caught.value)


def test_fields_of_one_byte_need_no_order() -> None:
    assert declare(fields=(("block", "V16"), ("a", "u1"), ("b", "i1"), ("c", ">i2"))).payload_size == 20


def test_the_longest_key_fits_a_delete() -> None:
    assert declare(fields=None, key=(0, PAYLOAD_SIZE_MAX - 1)).key == (0, PAYLOAD_SIZE_MAX - 1)


def test_a_type_knows_its_layout() -> None:
    entry_type = declare(fields=[["block", "V16"], ["count", ">u4"]])
    assert entry_type.dtype == np.dtype([("block", "V16"), ("count", ">u4")])
    assert entry_type.payload_size == 20
    assert entry_type == declare()
    assert hash(entry_type) == hash(declare())
    assert declare(fields=None).payload_size is None
    assert declare(fields=None).payload_size_range == (16, 252)
    assert declare(fields=None, key=None).payload_size_range == (0, 252)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BackendType("S3", print),  # type: ignore[arg-type]
        lambda: BackendType("", print),  # type: ignore[arg-type]
        lambda: BackendType("s3", None),  # type: ignore[arg-type]
        lambda: BackendType("s3", print, claims=True),  # type: ignore[arg-type]
        lambda: BackendType("s3", print, priority=1.5),  # type: ignore[arg-type]
        lambda: BackendType("s3", print, options=["region"]),  # type: ignore[arg-type]
        lambda: BackendType("s3", print, options={"region": 7}),  # type: ignore[arg-type, dict-item]
        lambda: Consumer("", frozenset({"note"}), print),
        lambda: Consumer("reader", frozenset(), print),
        lambda: Consumer("reader", "note", print),  # type: ignore[arg-type]
        lambda: Consumer("reader", frozenset({7}), print),  # type: ignore[arg-type]
        lambda: Consumer("reader", frozenset({"note"}), None),  # type: ignore[arg-type]
    ],
)
def test_wrong_backends_and_consumers_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(PluginError):
        make()


# ---- codecs


@pytest.mark.parametrize("given", [7, 10**15, "text", [1, 2], None, b"", b"x" * 19, b"x" * 21])
def test_an_encoder_that_gives_something_else_is_an_entry_error(given: Any) -> None:
    with pytest.raises(EntryError, match="reference"):
        declare(encode=lambda record: given).to_payload(EXAMPLES[0])


def test_an_encoder_that_raises_is_an_entry_error_that_shows_the_record() -> None:
    with pytest.raises(
        EntryError, match=r"cannot encode Reference\(block=b'0123.*, count=-1\): struct.error"
    ):
        declare().to_payload(Reference(b"0123456789abcdef", -1))


def test_a_decoder_that_gives_something_else_is_an_entry_error() -> None:
    with pytest.raises(EntryError, match="decode gave a NoneType, not a Reference"):
        declare(decode=lambda payload: None).from_payload(bytes(20))


@pytest.mark.parametrize("size", [0, 19, 21, 252, 253, 100_000])
def test_a_payload_of_another_size_never_reaches_the_decoder(size: int) -> None:
    def decode(payload: bytes) -> None:
        raise AssertionError("this must not run")

    with pytest.raises(EntryError, match=f"payload of {size} bytes, must be 20"):
        declare(decode=decode).from_payload(bytes(size))


def test_a_payload_too_short_for_its_key_never_reaches_the_decoder() -> None:
    with pytest.raises(EntryError, match="payload of 15 bytes, must be 16-252"):
        declare(fields=None, decode=lambda payload: Reference(payload, 0)).from_payload(bytes(15))


# ---- the conformance suite


class TestReference(EntryTypeConformance):
    entry_type = declare()
    examples = EXAMPLES


class TestReferenceOfVaryingSize(EntryTypeConformance):
    entry_type = declare(fields=None)
    examples = EXAMPLES


#: a fault of a codec or declaration, and the test of the suite that must find it
PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "decodes another value": (
        {"decode": lambda payload: Reference(payload[:16], 0)},
        "test_round_trip",
    ),
    "encodes something new each time": (
        {"encode": lambda record, made=[]: made.append(0) or struct.pack(">16sI", record.block, len(made))},
        "test_round_trip",
    ),
    "encodes too much": (
        {"encode": lambda record: bytes(253), "fields": None},
        "test_payload_is_within_its_size",
    ),
    "fields in another order": (
        {"fields": (("count", ">u4"), ("block", "V16")), "key": None},
        "test_fields_are_what_is_encoded",
    ),
    "fields of another size": ({"fields": (("block", "V16"),)}, "test_fields_are_what_is_encoded"),
    "id of hash_info": ({"id": 0x02}, "test_id_may_be_used"),
    "hidden from the host": ({"id": 0x02}, "test_host_accepts_it"),
    "key changes on the way": (
        {"decode": lambda payload: Reference(payload[:16].replace(b"\x55", b"\x66"), 1), "fields": None},
        "test_sizes_that_no_payload_has",
    ),
    "decoder exits": ({"decode": lambda payload: exit(1)}, "test_hostile_payloads"),
    "decoder accepts what cannot be encoded": (
        {"decode": lambda payload: Reference(payload[:16], -1), "fields": None},
        "test_hostile_payloads",
    ),
    "record of another class": ({"record": str}, "test_examples_are_records"),
}


@pytest.mark.parametrize(("changes", "test"), PLANTED.values(), ids=PLANTED.keys())
def test_the_suite_finds_a_planted_fault(changes: dict[str, Any], test: str) -> None:
    class Suite(EntryTypeConformance):
        entry_type = declare(**changes)
        examples = (*EXAMPLES, Reference(b"\x55" * 16, 1))

    with pytest.raises((AssertionError, EntryError, PluginError)):
        getattr(Suite(), test)()


def test_the_suite_does_not_wait_for_a_decoder_without_end() -> None:
    released = threading.Event()

    class Suite(EntryTypeConformance):
        entry_type = declare(decode=lambda payload: released.wait())
        examples = EXAMPLES
        decode_seconds_max = 0.01

    try:
        with pytest.raises(AssertionError, match=r"took more than 0\.01 s"):
            Suite().test_sizes_that_no_payload_has() or Suite().test_hostile_payloads()
    finally:
        released.set()


def test_the_suite_wants_examples() -> None:
    class Suite(EntryTypeConformance):
        entry_type = declare()
        examples = ()

    with pytest.raises(AssertionError, match="at least one record"):
        Suite().test_examples_are_records()
