"""The n-th call of a kind fails in core and workers: every call ends, and what a flush covered is there.

The real interpreter, the real processes and the real calls: only the result of one call of each thread is another.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest
from real_media import child, program
from store_records import assert_holds

import siltstone

if TYPE_CHECKING:
    from pathlib import Path

#: puts and flushes with two workers, and tells what of it was said to be done, what not, and why
SCENARIO = """
import json, sys
import siltstone
from siltstone import WorkerOptions
from siltstone.errors import SiltstoneError
from store_records import rows

errors, flushed = [], []

def attempt(act):
    try:
        result = act()
        return True if result is None else result
    except SiltstoneError as error:
        errors.append(type(error).__name__)
        return None

# Shorter than a test, longer than anything that has not gone wrong.
store = attempt(lambda: siltstone.open(sys.argv[1], workers=2, worker=WorkerOptions(deadline=10.0)))
if store is not None:
    for number in range(0, 600, 100):
        put = attempt(lambda: store.put_many(*rows(range(number, number + 100))))
        if attempt(store.flush) and put:
            flushed.append(number)
    attempt(store.close)
print(json.dumps([errors, flushed]))
"""
#: how long one run may take [s]
PATIENCE_S = 120.0


class Case(NamedTuple):
    """A call that fails.

    :param call: its name
    :param error: what it fails with
    :param count: so many of them are made by the thread that makes most
    :param of_volume: only calls that are about the volume's file
    """

    call: str
    error: str
    count: int
    of_volume: bool = False


CASES = [
    *(Case("fdatasync", error, 8, True) for error in ("EIO", "ENOSPC", "EDQUOT")),
    Case("fsync", "EIO", 2, True),
    *(Case("pwrite64", error, 11, True) for error in ("EIO", "ENOSPC", "EINTR")),
    Case("preadv2", "EIO", 2, True),
    *(Case("fallocate", error, 2, True) for error in ("ENOSPC", "EOPNOTSUPP", "EIO")),
    *(Case("mmap", error, 4, True) for error in ("ENOMEM", "EACCES")),
    *(Case("openat", error, 1, True) for error in ("EMFILE", "EACCES")),
    *(Case("flock", error, 4, True) for error in ("ENOLCK", "EINTR")),
    Case("fcntl", "ENOLCK", 2, True),
    Case("statx", "EIO", 10, True),
    Case("pipe2", "EMFILE", 4),
    *(Case("writev", error, 28) for error in ("EPIPE", "EAGAIN", "EINTR", "EIO")),
    *(Case("poll", error, 60) for error in ("EINTR", "ENOMEM")),
    *(Case("memfd_create", error, 2) for error in ("EMFILE", "ENOMEM")),
    *(Case("pidfd_open", error, 1) for error in ("EMFILE", "ENOSYS")),
    *(Case("pidfd_send_signal", error, 1) for error in ("EPERM", "ESRCH")),
    *(Case("vfork", error, 1) for error in ("EAGAIN", "ENOMEM")),
    Case("clone3", "EAGAIN", 5),
    *(Case("execve", error, 1) for error in ("ENOENT", "ENOMEM")),
    Case("socket", "EMFILE", 1),
    Case("bind", "EADDRINUSE", 1),
    Case("listen", "EADDRINUSE", 1),
    Case("prctl", "EINVAL", 1),
    Case("madvise", "ENOMEM", 2),
]


def run(path: Path, trace: Path, case: Case, when: int) -> tuple[list[str], list[int], bool]:
    """Run the scenario with the `when`-th such call of each thread failing: its errors, what it flushed, whether any
    call failed so."""
    wrapper = [program("strace"), "-f", "--seccomp-bpf", "-qq", "-o", str(trace), "-e", f"trace={case.call}"]
    wrapper += ["-e", f"inject={case.call}:error={case.error}:when={when}"]
    if case.of_volume:
        wrapper += ["-P", str(path)]
    with child(SCENARIO, path, wrapper=tuple(wrapper)) as process:
        # It ends with the last of all processes.
        printed, told = process.communicate(timeout=PATIENCE_S)
    if "ptrace" in told or "invalid system call" in told:
        pytest.skip(f"strace may not trace that here: {told.strip()[:200]}")
    assert process.returncode == 0, told
    assert "Traceback" not in told, told
    errors, flushed = json.loads(printed)
    return errors, flushed, "INJECTED" in trace.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.call}-{case.error}")
def test_a_call_that_fails_costs_no_flushed_write_and_leaves_nobody_waiting(
    tmp_path: Path, full_battery: bool, case: Case
) -> None:
    happened = False
    # One in the middle of its work, or each.
    for when in range(1, case.count + 1) if full_battery else [(case.count + 1) // 2]:
        path = tmp_path / f"{when}.silt"
        siltstone.create(path, shards=2, erase_block=64 * 1024)
        errors, flushed, failed = run(path, tmp_path / "trace", case, when)
        happened |= failed
        if not failed:
            assert (errors, flushed) == ([], list(range(0, 600, 100)))
        with siltstone.open(path, workers=0) as store:
            for number in flushed:
                assert_holds(store, range(number, number + 100))
        path.unlink()
    if not happened:
        pytest.skip(f"nothing calls {case.call} here")
