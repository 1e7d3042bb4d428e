"""The `hash_info` plugin: the record, the entry of 50 bytes, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone.errors import EntryError
from siltstone.records import HashInfo
from siltstone.testing.entry_type import EntryTypeConformance
from siltstone_plugins.hash_info import HASH_INFO, hash_info_from_journal_entry, journal_entry_from_hash_info

DIGEST = bytes(range(32))
SECTORS = st.integers(0, 2**64 - 1)


class TestHashInfoEntryType(EntryTypeConformance):
    entry_type = HASH_INFO
    distribution = "siltstone"
    examples = (
        HashInfo(hash=DIGEST, physical_sect=8, first_logical_sect=64),
        HashInfo(hash=bytes(32), physical_sect=0, first_logical_sect=0),
        HashInfo(hash=b"\xff" * 32, physical_sect=2**64 - 1, first_logical_sect=2**64 - 1),
    )


def test_the_entry_lies_as_the_rfc_has_it() -> None:
    info = HashInfo(hash=DIGEST, physical_sect=0x0102030405060708, first_logical_sect=0x1112131415161718)
    expected = "3202" + DIGEST.hex() + "0102030405060708" + "1112131415161718"
    assert journal_entry_from_hash_info(info).hex() == expected
    assert hash_info_from_journal_entry(bytes.fromhex(expected)) == info


@given(st.binary(min_size=32, max_size=32), SECTORS, SECTORS)
def test_every_record_comes_back(digest: bytes, physical: int, logical: int) -> None:
    info = HashInfo(digest, physical, logical)
    entry = journal_entry_from_hash_info(info)
    assert len(entry) == 50
    assert hash_info_from_journal_entry(entry) == info
    assert HASH_INFO.from_payload(entry[2:]) == info
    assert HASH_INFO.key_of(entry[2:]) == digest


def test_batches_lie_as_single_records_do() -> None:
    infos = [HashInfo(bytes([n]) * 32, n * 1000, 2**64 - 1 - n) for n in range(20)]
    rows = np.zeros(20, HASH_INFO.dtype)
    for row, info in zip(rows, infos, strict=True):
        row["hash"] = info.hash
        row["physical_sect"] = info.physical_sect
        row["first_logical_sect"] = info.first_logical_sect
    assert rows.tobytes() == b"".join(HASH_INFO.to_payload(info) for info in infos)


ENTRY = journal_entry_from_hash_info(HashInfo(DIGEST, 8, 64))


@pytest.mark.parametrize("wrong", [b"", ENTRY[:1], ENTRY[:49], ENTRY + b"\0"])
def test_an_entry_of_another_length_is_refused(wrong: bytes) -> None:
    with pytest.raises(EntryError, match=f"entry of {len(wrong)} bytes, must be 50"):
        hash_info_from_journal_entry(wrong)


@pytest.mark.parametrize("size", [0, 1, 2, 49, 51, 254, 255])
def test_another_size_byte_is_refused(size: int) -> None:
    with pytest.raises(EntryError, match=f"size byte at offset 0 is {size}") as caught:
        hash_info_from_journal_entry(bytes([size]) + ENTRY[1:])
    assert caught.value.size == size


@pytest.mark.parametrize("entry_type", [each for each in range(256) if each != 2])
def test_another_type_byte_is_refused(entry_type: int) -> None:
    with pytest.raises(EntryError, match=f"type byte at offset 1 is 0x{entry_type:02x}") as caught:
        hash_info_from_journal_entry(ENTRY[:1] + bytes([entry_type]) + ENTRY[2:])
    assert caught.value.type == entry_type


@pytest.mark.parametrize("wrong", [None, DIGEST, (DIGEST, 8, 64), object()])
def test_only_a_hash_info_makes_an_entry(wrong: Any) -> None:
    with pytest.raises(EntryError, match="must be a HashInfo"):
        journal_entry_from_hash_info(wrong)


# ---- the record


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hash", b"", "hash must be 32 bytes, not 0"),
        ("hash", b"\xab" * 31, "hash must be 32 bytes, not 31 \\(abab"),
        ("hash", b"\xab" * 100_000, "hash must be 32 bytes, not 100000 \\((ab){32}…\\)"),
        ("hash", "a" * 32, "hash must be bytes, not str"),
        ("hash", bytearray(32), "hash must be bytes, not bytearray"),
        ("hash", None, "hash must be bytes, not NoneType"),
        ("physical_sect", -1, "physical_sect must be 0-18446744073709551615, not -1"),
        ("physical_sect", 2**64, "physical_sect must be 0-18446744073709551615, not 18446744073709551616"),
        ("physical_sect", 1 << 1000, "physical_sect must be .* not a number of 1001 bits"),
        ("physical_sect", 1.0, "physical_sect must be an int, not float"),
        ("first_logical_sect", -1, "first_logical_sect must be 0-"),
        ("first_logical_sect", 2**64, "first_logical_sect must be 0-"),
        ("first_logical_sect", True, "first_logical_sect must be an int, not bool"),
        ("first_logical_sect", "8", "first_logical_sect must be an int, not str"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(EntryError, match=message) as caught:
        HashInfo(**{"hash": DIGEST, "physical_sect": 8, "first_logical_sect": 64, field: value})
    assert caught.value.field == field
    assert caught.value.value == value


def test_the_record_cannot_be_changed() -> None:
    info = HashInfo(DIGEST, 8, 64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.physical_sect = 9  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        info.other = 9  # type: ignore[attr-defined]


def test_the_record_is_a_value() -> None:
    info = HashInfo(DIGEST, 8, 64)
    assert info == HashInfo(hash=DIGEST, physical_sect=8, first_logical_sect=64)
    assert info != HashInfo(DIGEST, 8, 65)
    assert {info: 1}[HashInfo(DIGEST, 8, 64)] == 1
    assert pickle.loads(pickle.dumps(info)) == info == copy.deepcopy(info)
    assert dataclasses.replace(info, physical_sect=9) == HashInfo(DIGEST, 9, 64)
    assert repr(info).startswith("HashInfo(hash=b'\\x00\\x01")
