"""Superblocks that workers ask for: each writes of its own shards alone, and a dead one nothing more."""

from __future__ import annotations

import queue
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from real_media import make_file

from siltstone.errors import SiltstoneError
from siltstone.format.superblock import EMPTY
from siltstone.shard.changes import TakeEmpty
from siltstone.shard.space import taken_by
from siltstone.volume.volume import Volume
from siltstone_workers.change_values import change_to_wire
from siltstone_workers.errors import error_from_wire
from siltstone_workers.frames import pack_value, unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.pipes import Message
from siltstone_workers.publisher import Publisher
from siltstone_workers.superblock_values import difference_from_wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 64 * 1024


class Process:
    """A worker process that only hears answers."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[tuple[Any, ...], Any]] = queue.Queue()

    def tell(self, *fields: Any, bulk: Any = None, waited_for: bool = False) -> None:
        assert waited_for
        self.told.put((fields, bulk))

    def answer(self) -> tuple[tuple[Any, ...], Any]:
        return self.told.get(timeout=60)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    made = Volume.create(make_file(tmp_path / "volume"), shards=4, erase_block=BLOCK)
    yield made
    made.close()


@pytest.fixture
def publisher(volume: Volume) -> Iterator[Publisher]:
    made = Publisher(volume)
    yield made
    made.close()


def asking(number: int, shard: int, base: int = 0) -> Message:
    """The message of a worker that asks for an empty journal."""
    bulk = pack_value(change_to_wire(TakeEmpty(shard, 2 * BLOCK, kept=False)))
    return Message([Kind.PUBLISH, number, True, base], memoryview(bulk))


def empty(volume: Volume) -> list[int]:
    """The shards that have got an empty journal."""
    return sorted(each.shard for each in volume.superblock.extents if each.state == EMPTY)


def test_a_worker_gets_what_it_asks_for_its_own_shards(volume: Volume, publisher: Publisher) -> None:
    process = Process()
    publisher.submit(process, (0, 2), asking(7, 2))  # type: ignore[arg-type]
    (kind, number, error), bulk = process.answer()
    assert (kind, number, error) == (Kind.REPLY, 7, None)
    assert difference_from_wire(volume.superblock, unpack_value(bulk)) == volume.superblock
    assert empty(volume) == [2]


def test_a_worker_is_told_what_is_new_to_it(volume: Volume, publisher: Publisher) -> None:
    process, known = Process(), [volume.superblock]
    sizes = []
    for shard in (0, 2, 0):
        publisher.submit(process, (0, 2), asking(7, shard, known[-1].sequence))  # type: ignore[arg-type]
        _fields, bulk = process.answer()
        known.append(difference_from_wire(known[-1], unpack_value(bulk)))
        assert known[-1] == volume.superblock
        sizes.append(len(unpack_value(bulk)[-1]))
        # What others write meanwhile is told with the next.
        volume.publish(lambda superblock: replace(superblock, epoch=superblock.epoch + 1))
    # All that there is to whom it is not known what they have, one extent then.
    assert sizes == [len(known[1].extents), 1, 1]
    # Two that asked at a time may both have the older one; it is known for a while.
    publisher.submit(process, (0, 2), asking(8, 2, known[1].sequence))  # type: ignore[arg-type]
    _fields, bulk = process.answer()
    assert difference_from_wire(known[1], unpack_value(bulk)) == volume.superblock
    # For ever it is not: then it is all of it again.
    for number in range(8):
        publisher.submit(process, (0, 2), asking(number, 2))  # type: ignore[arg-type]
        process.answer()
    publisher.submit(process, (0, 2), asking(9, 2, known[1].sequence))  # type: ignore[arg-type]
    _fields, bulk = process.answer()
    assert len(unpack_value(bulk)[-1]) == len(volume.superblock.extents)
    assert difference_from_wire(known[1], unpack_value(bulk)) == volume.superblock


def test_a_worker_gets_the_superblock_with_its_change_although_others_are_written_at_once(
    volume: Volume, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shard took is known by the sequence of that very superblock."""
    usual, written = volume.publish, []

    def publish(change: Any, *, optional: bool = False) -> Any:
        written.append(usual(change, optional=optional))
        # As an opening of another worker's shards, between the write and the answer.
        usual(lambda superblock: replace(superblock, epoch=superblock.epoch + 1))
        return written[0]

    monkeypatch.setattr(volume, "publish", publish)
    process = Process()
    publisher.submit(process, (0, 2), asking(7, 2))  # type: ignore[arg-type]
    _fields, bulk = process.answer()
    found = difference_from_wire(volume.superblock, unpack_value(bulk))
    assert found == written[0]
    assert taken_by(found, 2).length == 2 * BLOCK


def test_a_change_of_another_workers_shard_is_refused(volume: Volume, publisher: Publisher) -> None:
    process, before = Process(), volume.superblock
    publisher.submit(process, (0, 2), asking(7, 1))  # type: ignore[arg-type]
    (kind, number, error), _bulk = process.answer()
    assert (kind, number) == (Kind.REPLY, 7)
    refused = error_from_wire(error)
    assert isinstance(refused, SiltstoneError)
    assert "[1], which are another worker's" in str(refused)
    assert volume.superblock is before


def test_nothing_is_written_for_a_worker_that_is_gone(volume: Volume, publisher: Publisher) -> None:
    dead, alive = Process(), Process()
    publisher.bar(dead)  # type: ignore[arg-type]
    # As one that it sent before its end, and that is read after it.
    publisher.submit(dead, (0, 2), asking(7, 0))  # type: ignore[arg-type]
    publisher.submit(alive, (1, 3), asking(8, 1))  # type: ignore[arg-type]
    assert alive.answer()[0][:2] == (Kind.REPLY, 8)
    assert empty(volume) == [1]
    assert dead.told.empty()
