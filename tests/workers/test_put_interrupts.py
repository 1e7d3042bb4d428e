"""^C anywhere in a put or a kill: what can be seen is covered by the next flush, and who is to end does."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from interrupts import Anywhere
from listening_worker import append, found, listening, try_append
from store_records import digest, info

import siltstone
from siltstone.errors import OutcomeUnknownError, SiltstoneError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from siltstone_workers.process import WorkerProcess

PUTS: dict[str, Callable[[WorkerProcess], object]] = {
    "one": lambda worker: try_append(worker, 100),
    "some": lambda worker: append(worker, 100),
    "what gathers": lambda worker: [try_append(worker, 3000) for _ in range(13)],
    "many": lambda worker: append(worker, 100_000),
    "in parts": lambda worker: append(worker, 500_000),
    "delete": lambda worker: worker.requests.delete(0, 2, np.zeros((100, 4), np.uint8)),
}


class Seen:
    """What of a worker may change with a put."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.counted = worker.requests.sent
        self.credit = worker.requests.credit.left
        self.calls = worker.requests.sender.sent
        self.found = set(found(worker))


def passes_all_places(
    worker: WorkerProcess, put: Callable[[WorkerProcess], object], places: itertools.count[int]
) -> bool:
    """Whether it did so without an end of this worker: ^C in the middle of a message ends it."""
    for place in places:
        # It has dealt with all, and everything fits.
        worker.requests.hear(place, [[0, worker.ledgers[0].next_sequence(), 1 << 40, 1 << 40]])
        worker.requests.credit.give(worker.requests.credit.window - worker.requests.credit.left)
        before = Seen(worker)
        was_interrupted = Anywhere(place).while_(lambda: put(worker))
        after = Seen(worker)
        was_sent = after.calls != before.calls
        if was_sent or after.found != before.found:
            assert after.counted > before.counted, place
        if worker.cause:
            return False
        assert (after.credit < before.credit) == was_sent, place
        if not was_interrupted:
            return True
        try:
            worker.requests.check_open()
            worker.requests.ask(2)  # type: ignore[arg-type] # any message: the pipe may be torn
        except OutcomeUnknownError:
            return False
    raise AssertionError


@pytest.mark.parametrize("kind", PUTS)
def test_what_was_sent_or_can_be_read_is_covered_by_the_next_flush(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    places = itertools.count(1)
    while True:
        with listening(monkeypatch) as worker:
            if passes_all_places(worker, PUTS[kind], places):
                break
    assert next(places) > 5


def test_a_worker_that_is_to_end_does_whatever_interrupts_that(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in itertools.count(1):
        with listening(monkeypatch) as worker:
            was_interrupted = Anywhere(place).while_(lambda worker=worker: worker.kill("it is enough"))
            if worker.cause:
                # Nothing is put to it from here on, so whoever tries must find that it ends.
                with pytest.raises(OutcomeUnknownError, match="it is enough"):
                    append(worker, 100)
                assert worker.wait(20.0)
        if not was_interrupted:
            break
    assert place > 3


def test_what_a_store_shows_after_it_is_flushed_by_a_flush_that_returns_well(tmp_path: Path) -> None:
    seen = 0
    with siltstone.open(tmp_path / "store.silt", workers=1, shards=1) as store:
        host: Any = store._core.shards  # type: ignore[union-attr]
        for place in itertools.count(1):
            while True:
                # The worker may have ended of the last one, and be away for a while.
                with suppress(SiltstoneError):
                    store.put(info(0))
                    store.flush()
                    break
            was_interrupted = Anywhere(place).while_(lambda place=place: store.put(info(place)))
            with suppress(SiltstoneError):
                is_seen = store.get(digest(place)) is not None
                store.flush()
                if is_seen:
                    seen += 1
                    process = host._keepers[0].process
                    assert process.flushed == process.requests.sent, place
            if not was_interrupted:
                break
    assert seen > 3
    assert place > 50
