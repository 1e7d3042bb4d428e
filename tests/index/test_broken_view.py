"""Whatever stands in the shared memory of an index, a lookup in it ends in an answer or an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from indexed_log import CLUSTER
from shared_log import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
JOURNALS_AT = 4096
SEGMENTS_AT = JOURNALS_AT + 64 * 1024 + 16 * CLUSTER
WINDOWS_AT = SEGMENTS_AT + CLUSTER


@pytest.fixture(scope="module")
def breaker() -> Iterator[subprocess.Popen[str]]:
    """A process that breaks its index as it is told on a line, and answers with one."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "broken_view.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def field(at: int, *values: int) -> list[tuple[int, int]]:
    """Bytes from `at` on."""
    return list(enumerate(values, at))


PLACES = st.one_of(
    st.integers(0, 55),
    st.integers(JOURNALS_AT, JOURNALS_AT + 4 * 64 - 1),
    st.integers(SEGMENTS_AT, SEGMENTS_AT + 2 * 32 - 1),
    st.integers(WINDOWS_AT, WINDOWS_AT + 4 * SIZE.window_bytes - 1),
)


@given(places=st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=40))
@example(places=field(SEGMENTS_AT + 8, 0, 0, 0, 0))  # no buckets
@example(
    places=field(SEGMENTS_AT, 1) + field(SEGMENTS_AT + 20, 1)
)  # one that waits for slots that nobody brings
@example(
    places=field(SEGMENTS_AT - CLUSTER, 1) + field(SEGMENTS_AT + 8, 1, 0)
)  # a list of stores amid a change
@example(places=field(SEGMENTS_AT + 8, 255, 255, 255, 255))  # buckets far beyond the window
@example(places=field(SEGMENTS_AT + 12, 255, 255, 255, 255))  # a window that is not there
@example(places=field(JOURNALS_AT + 12, 2, 0, 0, 0, *[255] * 8))  # a tail slot that is not there
@example(places=field(JOURNALS_AT + 24, 77))  # a life that was not mapped
@example(places=field(JOURNALS_AT + 24, 77) + field(JOURNALS_AT + 40, 0, 16, 0))  # and is one cluster
@example(places=field(JOURNALS_AT + 24, 77) + field(JOURNALS_AT + 32, *[255] * 16))  # and lies nowhere
@example(places=field(JOURNALS_AT + 24, 0))  # no life, and slots name it
@example(places=field(JOURNALS_AT, 1))  # a change that does not end
def test_the_reader_lives(breaker, places):
    assert breaker.stdin is not None
    assert breaker.stdout is not None
    breaker.stdin.write(json.dumps(places) + "\n")
    breaker.stdin.flush()
    assert breaker.stdout.readline() == "alive\n", f"ended with {breaker.wait()}"
