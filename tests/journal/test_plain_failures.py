"""Plain journals on media that fail, and journals that are handed what they cannot take."""

from __future__ import annotations

import numpy as np
import pytest

from siltstone import Journal
from siltstone.errors import EntryError, MediumError, PoisonedError, StateError
from siltstone.journal.space import BareSpace
from siltstone.plugin import BackendOptions
from siltstone_plugins.memory import open_memory

PAYLOAD = 48
ENTRIES_A_CLUSTER = 81
BLOCK = 65536


@pytest.fixture
def backend():
    opened = open_memory("", BackendOptions(read_only=False, create=True))
    opened.lock()
    opened.grow(1 << 20)
    yield opened
    opened.close()


@pytest.mark.parametrize("operation", ["write", "flush"])
def test_the_first_failure_poisons_and_nothing_more_is_written(backend, monkeypatch, operation):
    journal = Journal(BareSpace(backend, erase_block=BLOCK), format="plain")
    journal.allocate(BLOCK)
    for number in range(10):
        journal.append(0x10, bytes([number]) * PAYLOAD)
    journal.flush()
    written = backend.read(0, backend.size)

    def fail(*_arguments):
        monkeypatch.undo()
        raise MediumError("EIO", url="memory:", operation=operation, offset=0, length=0, errno=5)

    taken = 10
    monkeypatch.setattr(backend, operation, fail)
    with pytest.raises(MediumError, match="EIO"):
        for number in range(10, 200):
            journal.append(0x10, bytes([number]) * PAYLOAD)
            taken += 1
            if operation == "flush":
                journal.flush()
    after = backend.read(0, backend.size)
    if operation == "write":
        assert taken == ENTRIES_A_CLUSTER
        assert after == written
    for _attempt in range(2 * ENTRIES_A_CLUSTER):
        with pytest.raises(PoisonedError, match="EIO"):
            journal.append(0x10, bytes(PAYLOAD))
    with pytest.raises(PoisonedError):
        journal.flush()
    assert backend.read(0, backend.size) == after
    # Another reader finds what was flushed, and no hole.
    again = Journal(BareSpace(backend, erase_block=BLOCK), format="plain")
    again.parse(journal.dump())
    assert [entry.payload[0] for _offset, entry in again.walk()][:10] == list(range(10))


@pytest.mark.parametrize("erase_block", [0, -4096, 1, 1000, 2048, 4097, 3 * 4096])
def test_an_erase_block_that_cannot_be_is_refused(backend, erase_block):
    with pytest.raises(StateError) as caught:
        BareSpace(backend, erase_block=erase_block)
    assert f"erase_block {erase_block}" in str(caught.value)


def test_an_extent_too_small_for_a_sealed_journal_is_refused(backend):
    journal = Journal(BareSpace(backend, erase_block=4096), format="sealed")
    with pytest.raises(StateError, match="4096 bytes is too small"):
        journal.allocate(4096)


@pytest.mark.parametrize("format_", ["plain", "sealed"])
def test_what_is_no_payload_or_type_is_refused_and_changes_nothing(backend, format_):
    journal = Journal(BareSpace(backend, erase_block=BLOCK), format=format_)
    journal.allocate(BLOCK)
    journal.append(0x10, b"first")
    for kind, payload in (
        (0x10, 10),
        (0x10, "text"),
        (0x10, [1, 2]),
        (0x10, None),
        (300, b"x"),
        (-1, b"x"),
        ("a", b"x"),
        (None, b"x"),
        (0x10, bytes(300)),
    ):
        with pytest.raises(EntryError):
            journal.append(kind, payload)
        with pytest.raises(EntryError):
            journal.append_many([(0x10, b"not alone"), (kind, payload)])
    for batch in ([5], [None], np.array([3 + 256, 0x10, 7]), np.zeros((2, 2), np.uint8)):
        with pytest.raises(EntryError):
            journal.append_many(batch)
    journal.append(0x10, np.frombuffer(b"last", np.uint8))
    journal.flush()
    assert [entry.payload for _offset, entry in journal.walk()] == [b"first", b"last"]
