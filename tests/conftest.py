"""What holds for every test: how hard hypothesis tries, and that nothing is left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

#: "smoke" at every commit, "full" by `make battery`
BATTERY = os.environ.get("SILTSTONE_BATTERY", "smoke")

hypothesis.settings.register_profile("smoke", max_examples=30, deadline=None, print_blob=True)
hypothesis.settings.register_profile("full", max_examples=5000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(BATTERY)

#: how long a thread or child that was told to end may take to be gone [s]
GRACE_S = 1.0


@pytest.fixture(scope="session")
def full_battery() -> bool:
    """Whether the reliability batteries run at full size."""
    return BATTERY == "full"


@dataclass(frozen=True)
class Belongings:
    """What this process has open and running, each with a line that says what it is."""

    descriptors: dict[tuple[int, str], str]
    threads: dict[int, str]
    children: dict[int, str]

    @classmethod
    def now(cls) -> Belongings:
        return cls(open_descriptors(), running_threads(), child_processes())

    def beyond(self, before: Belongings) -> list[str]:
        """Say what is here and was not `before`."""
        return [
            line
            for mine, theirs in (
                (self.descriptors, before.descriptors),
                (self.threads, before.threads),
                (self.children, before.children),
            )
            for what, line in mine.items()
            if what not in theirs
        ]


def open_descriptors() -> dict[tuple[int, str], str]:
    # By number and target, so that a descriptor closed and another opened under its number is seen.
    found = {}
    # Not pathlib: this runs twice a test.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        # The one that lists the folder is gone by now.
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            found[int(name), target] = f"open descriptor {name}: {target}"
    return found


def running_threads() -> dict[int, str]:
    return {id(thread): f"thread {thread.name!r}" for thread in threading.enumerate() if not thread.daemon}


def child_processes() -> dict[int, str]:
    found = {}
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208
        # A thread may end between the two.
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                found[int(pid)] = f"child process {pid}: {describe_process(int(pid))}"
    return found


def describe_process(pid: int) -> str:
    try:
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return command or "ended, but nobody waited for it"


@pytest.fixture(autouse=True)
def workers_where_nobody_says(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many workers a store has that names none: 0, since starting them takes longer than most tests.

    Modules of tests that hold for any number of workers are run with several by their conftest.
    """
    workers: int = getattr(request, "param", 0)
    monkeypatch.setattr("siltstone.core.core.workers_by_default", lambda: workers)
    return workers


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the test whether it failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a descriptor, a thread or a child process; `may_leak(reason=...)` allows it."""
    allowed = request.node.get_closest_marker("may_leak")
    if allowed is not None:
        assert allowed.kwargs.get("reason"), "may_leak needs a reason"
        yield
        return
    before = Belongings.now()
    yield
    # The traceback of a failure keeps what the test had.
    if request.node.stash.get(FAILED, False):
        return
    left = Belongings.now().beyond(before)
    if left:
        left = left_for_good(before)
    if left:
        pytest.fail("left behind:\n" + "\n".join(f"  {line}" for line in left), pytrace=False)


def left_for_good(before: Belongings) -> list[str]:
    """What stays after a collection of garbage and the time that a thread takes to end."""
    gc.collect()
    deadline = time.monotonic() + GRACE_S
    while left := Belongings.now().beyond(before):
        # A descriptor that nobody is busy closing stays.
        if time.monotonic() > deadline or all(line.startswith("open descriptor") for line in left):
            break
        time.sleep(0.01)
    return left
