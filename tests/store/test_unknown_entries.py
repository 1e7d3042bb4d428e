"""Entries of a type that the superblock does not name are an error, not something to skip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import siltstone
from siltstone import HashInfo
from siltstone.errors import EntryError, UnknownEntryTypeError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", [0x0A, 0x77, 0xF3])
def test_a_store_with_a_stranger_is_not_opened(path: Path, kind: int) -> None:
    store = siltstone.open(path, shards=1)
    store.put(HashInfo(bytes(32), 1, 1))
    shard = store._core.shards.group.shards[0]
    shard.append(np.frombuffer(bytes((5, kind, 1, 2, 3)), np.uint8), 0)
    store.close()
    for read_only in (True, False):
        with pytest.raises(UnknownEntryTypeError, match="superblock") as caught:
            siltstone.open(path, read_only=read_only)
        assert path.read_bytes()[caught.value.offset - 4096 :][:8192].find(bytes((5, kind, 1, 2, 3))) >= 0
    report = siltstone.verify(path)
    assert not report.ok
    assert f"{kind:#04x}" in report.problems[0].message


def test_short_keys_in_a_list_are_not_padded(path: Path) -> None:
    digest = bytes(range(32))
    with siltstone.open(path, shards=1) as store:
        with pytest.raises(EntryError, match="keys"):
            store.get_many([b"short", digest])
        with pytest.raises(EntryError, match="hash"):
            store.put_many([b"short", digest], [1, 2], [1, 2])
        store.put_many([digest, digest[::-1]], [1, 2], [1, 2])
        assert store.get_many([digest[::-1], digest])[1].tolist() == [2, 1]


@pytest.mark.parametrize("key", ["text", 5, None, [1, 2], np.zeros(8, np.uint32), b"short"])
def test_what_is_no_key_is_refused(path: Path, key: object) -> None:
    with siltstone.open(path, shards=1) as store:
        with pytest.raises(EntryError):
            store.get(key)
        with pytest.raises(EntryError):
            store.delete(key)
