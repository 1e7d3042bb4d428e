"""The public journal: every row of the RFC's table, in both formats, over real backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siltstone import Journal
from siltstone.errors import (
    ClosedError,
    DamageError,
    DiskFullError,
    EndOfJournalError,
    EntryError,
    JournalFullError,
    MediumError,
    PoisonedError,
    StateError,
)
from siltstone.journal.space import BareSpace
from siltstone.plugin.types import BackendOptions
from siltstone_plugins import file, memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

    from siltstone.volume.backend import Backend

Format = Literal["sealed", "plain"]
BLOCK = 64 * 1024
FIRST = {"plain": 0, "sealed": 8192}


def new_memory() -> Backend:
    backend = next(iter(memory.siltstone_backends())).open("", BackendOptions(create=True))
    backend.lock()
    return backend


@pytest.fixture(params=["memory", "file", "file that punches holes"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        opened = new_memory()
    else:
        kind = next(iter(file.siltstone_backends()))
        extra = {} if request.param == "file" else {"discard": "punch"}
        opened = kind.open(str(tmp_path / "journal.bin"), BackendOptions(create=True, extra=extra))
        opened.lock()
    with opened:
        yield opened


@pytest.fixture(params=["sealed", "plain"])
def format_(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


@pytest.fixture
def journal(backend: Backend, format_: Format) -> Iterator[Journal]:
    with Journal(BareSpace(backend, erase_block=BLOCK), format=format_) as made:
        made.allocate(BLOCK)
        yield made


def contents(journal: Journal) -> list[tuple[int, bytes]]:
    return [(entry.type, entry.payload) for _offset, entry in journal.walk()]


def test_space_is_taken_given_back_and_named(backend: Backend, format_: Format) -> None:
    space = BareSpace(backend, erase_block=BLOCK)
    journal = Journal(space, format=format_)
    assert not journal.is_allocated
    with pytest.raises(StateError):
        journal.dump()
    journal.allocate(BLOCK + 1)
    assert journal.is_allocated
    assert journal.extent.length == journal.round_to_erase_blocks(BLOCK + 1) == 2 * BLOCK
    assert journal.round_to_erase_blocks(BLOCK) == BLOCK  # the RFC's code adds one here
    assert len(journal.dump()) == journal.dump_size == 16
    with pytest.raises(StateError):
        journal.allocate(BLOCK)
    journal.deallocate()
    assert not journal.is_allocated
    other = Journal(space, format=format_)
    other.allocate(BLOCK)
    assert other.extent.offset == 0


def test_entries_are_read_back_by_offset_and_in_order(journal: Journal) -> None:
    wanted = [(16 + number % 200, bytes([number]) * (number % 250)) for number in range(250)]
    offsets = [journal.append(kind, payload) for kind, payload in wanted]
    assert offsets[0] == FIRST[journal.format]
    journal.flush()
    assert contents(journal) == wanted
    assert [offset for offset, _entry in journal.walk()] == offsets
    for offset, (kind, payload) in zip(offsets, wanted, strict=True):
        entry = journal.read(offset)
        assert (entry.type, entry.payload, entry.size) == (kind, payload, len(payload) + 2)
    assert [offset for offset, _entry in journal.walk(offsets[100])] == offsets[100:]


def test_reading_beyond_the_end_says_where_it_is(journal: Journal) -> None:
    journal.append(16, b"one")
    for offset in (journal.position, journal.extent.length, 1 << 40, -1):
        with pytest.raises(EndOfJournalError) as caught:
            journal.read(offset)
        assert caught.value.offset == offset


def test_a_full_journal_says_so_and_keeps_what_it_has(journal: Journal) -> None:
    count = 0
    with pytest.raises(JournalFullError):
        while True:
            journal.append(16, b"x" * 200)
            count += 1
    with pytest.raises(JournalFullError):
        journal.append(16, b"y" * 200)
    with pytest.raises(JournalFullError):
        journal.append_many([(16, b"z" * 200)] * 3)
    journal.flush()
    assert contents(journal) == [(16, b"x" * 200)] * count
    assert count >= 14 * 20 - 1


def test_a_batch_that_does_not_fit_changes_nothing(journal: Journal) -> None:
    journal.append(16, b"first")
    before = journal.position
    with pytest.raises(JournalFullError):
        journal.append_many([(16, b"x" * 200)] * 1000)
    assert journal.position == before
    assert contents(journal) == [(16, b"first")]


def test_a_batch_is_appended_when_its_block_ends_well(journal: Journal) -> None:
    with journal.batch() as batch:
        batch.append((16, b"one"))
        batch.append((17, b"two"))
        assert contents(journal) == []
    assert contents(journal) == [(16, b"one"), (17, b"two")]
    with pytest.raises(ZeroDivisionError), journal.batch() as batch:
        batch.append((18, b"three"))
        raise ZeroDivisionError
    assert len(contents(journal)) == 2


@pytest.mark.parametrize(
    ("kind", "payload"), [(0, b""), (1, b""), (3, b""), (255, b""), (16, b"x" * 253), (16, b"x" * 1000)]
)
def test_what_is_no_entry_is_refused(journal: Journal, kind: int, payload: bytes) -> None:
    with pytest.raises(EntryError):
        journal.append(kind, payload)
    with pytest.raises(EntryError):
        journal.append_many([(16, b"fine"), (kind, payload)])
    assert contents(journal) == []


def test_a_stopped_journal_goes_on_where_it_was(journal: Journal) -> None:
    wanted = [(16, bytes([number]) * 100) for number in range(100)]
    journal.append_many(wanted)
    where = journal.stop()
    with pytest.raises(StateError):
        journal.append(16, b"no")
    offset = list(journal.walk())[-1]
    journal.resume(where if where is not None else offset[0] + offset[1].size)
    journal.append(17, b"more")
    journal.flush()
    assert contents(journal) == [*wanted, (17, b"more")]


def test_another_process_finds_a_journal_by_its_dump(backend: Backend, format_: Format) -> None:
    space = BareSpace(backend, erase_block=BLOCK, start=BLOCK)
    first = Journal(space, format=format_)
    first.allocate(BLOCK)
    first.append_many([(16, b"a"), (17, b"b")])
    where = first.stop()
    dump = first.dump()
    first.close()
    second = Journal(BareSpace(backend, erase_block=BLOCK), format=format_)
    second.parse(dump)
    second.resume(where if where is not None else 6)
    assert contents(second) == [(16, b"a"), (17, b"b")]
    second.append(18, b"c")
    second.flush()
    assert contents(second) == [(16, b"a"), (17, b"b"), (18, b"c")]


def test_a_recycled_journal_forgets_everything(journal: Journal) -> None:
    journal.append_many([(16, b"x" * 100)] * 200)
    journal.flush()
    journal.recycle()
    assert contents(journal) == []
    journal.append(17, b"new")
    journal.flush()
    assert contents(journal) == [(17, b"new")]


def test_a_crash_keeps_what_was_flushed_and_nothing_is_appended_to_it(backend: Backend) -> None:
    space = BareSpace(backend, erase_block=BLOCK)
    journal = Journal(space)
    journal.allocate(BLOCK)
    journal.append_many([(16, b"x" * 100)] * 50)
    journal.flush()
    journal.append_many([(17, b"y" * 100)] * 3)  # never written: it is all in the tail
    crashed = Journal(BareSpace(backend, erase_block=BLOCK))
    crashed.parse(journal.dump())
    found = crashed.recover(journal.extent.generation)
    assert contents(crashed) == [(16, b"x" * 100)] * 50
    assert found.end.sequence == 1
    assert found.cut_entries == 0
    with pytest.raises(StateError):
        crashed.append(18, b"z")
    with pytest.raises(DamageError):
        crashed.recover(journal.extent.generation + 1)


def test_an_unfinished_batch_is_cut_and_reported(backend: Backend) -> None:
    journal = Journal(BareSpace(backend, erase_block=BLOCK))
    journal.allocate(BLOCK)
    journal.append(16, b"kept")
    journal.flush()
    journal.append_many([(17, b"y" * 100)] * 100)  # its closed clusters are written, its tail is not
    crashed = Journal(BareSpace(backend, erase_block=BLOCK))
    crashed.parse(journal.dump())
    found = crashed.recover(journal.extent.generation)
    assert contents(crashed) == [(16, b"kept")]
    assert found.cut_clusters == 2
    assert found.cut_entries == 2 * 39
    assert found.cut_bytes == found.cut_entries * 102
    assert "batch" in found.reason


def test_blocks_hold_what_a_walk_yields(backend: Backend) -> None:
    journal = Journal(BareSpace(backend, erase_block=BLOCK))
    journal.allocate(BLOCK)
    wanted = [(16 + number % 9, bytes(number % 252)) for number in range(300)]
    journal.append_many(wanted)
    blocks = list(journal.walk_blocks())
    assert [pair for block in blocks for pair in block] == list(journal.walk())
    assert np.concatenate([block.types for block in blocks]).tolist() == [kind for kind, _payload in wanted]
    assert np.concatenate([block.sizes for block in blocks]).tolist() == [
        len(data) + 2 for _kind, data in wanted
    ]


def test_damage_is_found_when_it_is_read(backend: Backend) -> None:
    journal = Journal(BareSpace(backend, erase_block=BLOCK))
    journal.allocate(BLOCK)
    offsets = journal.append_many([(16, b"x" * 100)] * 100)
    journal.flush()
    at = offsets[50] // 4096 * 4096
    cluster = bytearray(backend.read(at, 4096))
    cluster[100] ^= 1
    backend.write(at, cluster)
    with pytest.raises(DamageError) as caught:
        list(journal.walk())
    assert caught.value.offset == at
    with pytest.raises(DamageError):
        journal.read(offsets[50])


class FailingBackend:
    """A memory medium whose next write or flush fails, once."""

    def __init__(self, backend: Backend) -> None:
        self.inner = backend
        self.fail = ""

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def write(self, offset: int, data: Buffer) -> None:
        self._maybe("write")
        self.inner.write(offset, data)

    def flush(self) -> None:
        self._maybe("flush")
        self.inner.flush()

    def _maybe(self, operation: str) -> None:
        if self.fail == operation:
            self.fail = ""
            raise MediumError(f"{operation} failed", url="test", operation=operation, offset=0)


@pytest.mark.parametrize("operation", ["write", "flush"])
def test_the_first_failure_poisons_for_good(operation: str) -> None:
    backend = FailingBackend(new_memory())
    journal = Journal(BareSpace(backend, erase_block=BLOCK))  # type: ignore[arg-type]
    journal.allocate(BLOCK)
    journal.append(16, b"durable")
    journal.flush()
    journal.append(16, b"lost")
    backend.fail = operation
    with pytest.raises(MediumError):
        journal.flush()
    assert journal.poison is not None
    for call in (
        journal.flush,
        lambda: journal.append(16, b"no"),
        lambda: journal.append_many([(16, b"no")]),
    ):
        with pytest.raises(PoisonedError, match=operation):
            call()
    assert journal.read(8192).payload == b"durable"
    backend.inner.close()


def test_a_journal_that_gets_no_space_stays_without(tmp_path: Path) -> None:
    kind = next(iter(memory.siltstone_backends()))
    with kind.open("", BackendOptions(create=True, extra={"capacity": BLOCK})) as backend:
        backend.lock()
        journal = Journal(BareSpace(backend, erase_block=BLOCK))
        with pytest.raises(DiskFullError):
            journal.allocate(2 * BLOCK)
        assert not journal.is_allocated
        journal.allocate(BLOCK)
        assert journal.is_allocated


def test_a_closed_journal_takes_nothing(journal: Journal) -> None:
    journal.close()
    journal.close()
    for call in (journal.flush, journal.stop, lambda: journal.append(16, b""), lambda: journal.read(0)):
        with pytest.raises(ClosedError):
            call()


@pytest.mark.parametrize("dump", [b"", bytes(15), bytes(16), b"\xff" * 16, bytes(15) + b"\1"])
def test_a_dump_from_elsewhere_is_refused(backend: Backend, format_: Format, dump: bytes) -> None:
    backend.grow(4 * BLOCK)
    journal = Journal(BareSpace(backend, erase_block=BLOCK), format=format_)
    with pytest.raises(StateError, match="dump"):
        journal.parse(dump)


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(16, 239), st.binary(max_size=251)), min_size=1, max_size=40),
        max_size=12,
    ),
    flushed=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_any_batches_are_read_back(batches: list[list[tuple[int, bytes]]], flushed: list[bool]) -> None:
    with new_memory() as backend:
        journals = [
            Journal(BareSpace(backend, erase_block=BLOCK)),
            Journal(BareSpace(backend, start=1 << 20), format="plain"),
        ]
        for journal in journals:
            journal.allocate(16 * BLOCK)
            wanted = []
            for batch, flush in zip(batches, flushed, strict=False):
                journal.append_many(batch)
                wanted += batch
                if flush:
                    journal.flush()
            assert contents(journal) == wanted
