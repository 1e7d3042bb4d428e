"""Workers start from any program, or the opening says why not; and nothing that comes through a pipe is believed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from store_records import digest, info
from worker_stores import SMALL, all_serve, ends_within, pids, shared_memory, until, workers_of

import siltstone
from siltstone.errors import OutcomeUnknownError, ProtocolError, SiltstoneError, WorkerError
from siltstone_workers import keeper, process
from siltstone_workers.encoding import encode_frame
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import PROTOCOL_VERSION
from siltstone_workers.pipes import make_pipe
from siltstone_workers.receiver import Receiver
from siltstone_workers.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# ---- programs

#: at the top of a script, without a guard: a worker that ran it again would start workers that run it again
SCRIPT = """
import os, sys
import siltstone
from siltstone import HashInfo
store = siltstone.open(sys.argv[1], workers=2, erase_block=65536)
store.put(HashInfo(bytes(32), 1, 2))
store.flush()
assert store.get(bytes(32)) == HashInfo(bytes(32), 1, 2)
assert [worker.state for worker in store.workers()] == ["serving"] * 2
store.close()
os.write(int(sys.argv[2]), b"once ")
"""

#: the thread that opens has ended long before the store is used
THREAD = SCRIPT.replace(
    "store = siltstone.open(",
    "import threading\nopened = []\nthread = threading.Thread(target=lambda: opened.append(siltstone.open(",
).replace("erase_block=65536)", "erase_block=65536)))\nthread.start()\nthread.join()\n(store,) = opened")

CLOSED = "import os\nfor each in (0, 1, 2):\n    os.close(each)\n" + SCRIPT


def once(source: str, path: Path, *options: str, standard_input: bool = False, **more: Any) -> None:
    """Run a program that opens a store at `path`, and check that it did all of it, once."""
    reading, writing = os.pipe()
    script = path.with_name("script.py")
    script.write_text(source)
    try:
        done = subprocess.run(
            [sys.executable, *options, "-" if standard_input else str(script), str(path), str(writing)],
            pass_fds=[writing],
            input=source if standard_input else None,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            **more,
        )
        os.close(writing)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert os.read(reading, 100) == b"once "
    finally:
        os.close(reading)
    with siltstone.open(path, workers=0) as store:
        assert len(store) == 1


@pytest.mark.parametrize("source", [SCRIPT, THREAD, CLOSED], ids=["script", "thread", "closed streams"])
def test_a_script_without_a_guard_can_open(tmp_path: Path, source: str) -> None:
    once(source, tmp_path / "store.silt")


def test_modules_beside_a_script_that_are_named_like_those_that_python_begins_with_are_not_taken_for_them(
    tmp_path: Path,
) -> None:
    for name in ("types", "enum", "codecs", "functools"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the caller has loaded it before')")
    once(SCRIPT, tmp_path / "store.silt")


def test_a_program_on_standard_input_can_open(tmp_path: Path) -> None:
    once(SCRIPT, tmp_path / "store.silt", standard_input=True)


def test_a_program_to_which_every_warning_is_an_error_can_open(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}
    once(SCRIPT, tmp_path / "store.silt", "-W", "error", "-X", "dev", env=environment)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)], ids=str)
def test_no_medium_is_under_the_number_of_a_standard_stream(
    tmp_path: Path, workers: int, closed: tuple[int, ...]
) -> None:
    source = (
        "import os, sys, siltstone\n"
        f"for each in {closed}: os.close(each)\n"
        f"store = siltstone.open(sys.argv[1], workers={workers})\n"
        "pids = ['self', *(str(worker.pid) for worker in store.workers())]\n"
        "found = [os.path.lexists(f'/proc/{pid}/fd/{each}') and os.readlink(f'/proc/{pid}/fd/{each}')\n"
        f"    for pid in pids for each in {closed}]\n"
        "store.close()\n"
        "ours = [each for each in found if each and 'pidfd' not in each and each != '/dev/null']\n"
        "sys.exit(len(ours))\n"
    )
    done = subprocess.run([sys.executable, "-c", source, tmp_path / "store.silt"], check=False, timeout=120)
    assert done.returncode == 0


def test_without_an_interpreter_the_opening_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for executable in ("", None, str(tmp_path / "nowhere")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            with pytest.raises(WorkerError, match=r"interpreter|could not be started"):
                siltstone.open(tmp_path / "store.silt", workers=2, **SMALL)
    assert shared_memory() == []
    siltstone.open(tmp_path / "store.silt", workers=2).close()


# ---- a worker that is none

READY = b"".join(bytes(each) for each in encode_frame([Kind.READY, PROTOCOL_VERSION, 1, None]))
OTHER_VERSION = b"".join(bytes(each) for each in encode_frame([Kind.READY, PROTOCOL_VERSION + 1, 1, None]))
STRANGE = b"".join(bytes(each) for each in encode_frame([Kind.PROGRESS, 1 << 60, 1, []]))
FAKE = (
    "import os, sys, time\n"
    "requests, events, answers = map(int, sys.argv[1:4])\n"
    "os.write(events, bytes.fromhex(sys.argv[4]))\n"
    "os.write(answers, bytes.fromhex(sys.argv[5]))\n"
    "while sys.argv[6] == 'stay' and os.read(requests, 1 << 20): pass\n"
)


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "ends"])
@pytest.mark.parametrize(
    ("events", "answers"),
    [
        (b"", b""),
        (b"garbage, and more of it: \xff\xff\xff\xff", b""),
        (b"\0\0\0\0", b""),
        (READY[: len(READY) // 2], b""),
        (OTHER_VERSION, b""),
        (STRANGE, b""),
        (READY + b"\xff" * 100, b""),
        (READY, b"\xff" * 100),
        (READY, READY),
        (READY, READY[:3]),
        (READY + READY, b""),
        (READY + STRANGE, b""),
    ],
    ids=lambda data: data[:6].hex() + f"-{len(data)}",
)
def test_a_worker_that_is_none_costs_the_opening_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: bytes, answers: bytes, stays: bool
) -> None:
    def start(pipes: list[int], inherited: Sequence[int], *_path: Any) -> subprocess.Popen[bytes]:
        fake = [*map(str, pipes), events.hex(), answers.hex(), "stay" if stays else "end"]
        return subprocess.Popen([sys.executable, "-S", "-c", FAKE, *fake], pass_fds=(*pipes, *inherited))

    monkeypatch.setattr(process, "_start", start)
    monkeypatch.setattr(keeper, "_START_SECONDS", 1.0)
    with ends_within(3.0), pytest.raises(SiltstoneError):
        siltstone.open(
            tmp_path / "store.silt", workers=2, worker=siltstone.WorkerOptions(deadline=1.0), **SMALL
        )
    assert shared_memory() == []
    monkeypatch.undo()
    siltstone.open(tmp_path / "store.silt", workers=0).close()


# ---- a core that is none


@pytest.fixture
def real_worker() -> Iterator[tuple[Any, int, int, int]]:
    """A worker without a core: the process, and the core's ends of its pipes."""
    requests, replies, events, answers = (make_pipe() for _ in range(4))
    theirs = (requests[0], replies[0], events[1], answers[1])
    started = subprocess.Popen(
        [sys.executable, "-m", "siltstone_workers", *map(str, theirs), str(os.getpid())],
        pass_fds=theirs,
        stderr=subprocess.DEVNULL,
    )
    for end in theirs:
        os.close(end)
    with started:
        yield started, requests[1], events[0], answers[0]
        started.kill()
    for end in (requests[1], replies[1], events[0], answers[0]):
        with contextlib.suppress(OSError):
            os.close(end)


def hello(version: int, bulk: bytes | None) -> bytes:
    return b"".join(bytes(each) for each in encode_frame([Kind.HELLO, version], bulk))


def noise() -> bytes:
    return random.Random(7).randbytes(5000)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (lambda: b"", 0),
        (lambda: hello(PROTOCOL_VERSION, b"")[:5], 1),
        (lambda: hello(PROTOCOL_VERSION + 1, b"\x80"), 1),
        (lambda: hello(PROTOCOL_VERSION, None), 1),
        (lambda: hello(PROTOCOL_VERSION, b"\x80"), 1),
        (lambda: hello(PROTOCOL_VERSION, b"\xc1" * 50), 1),
        (lambda: b"\xff" * 4, 1),
        (lambda: bytes(64), 1),
        (noise, 1),
    ],
    ids=["nothing", "half", "version", "no-bulk", "empty", "no-msgpack", "long", "zeros", "noise"],
)
def test_a_worker_of_a_core_that_is_none_ends(
    real_worker: tuple[Any, int, int, int], sent: Callable[[], bytes], code: int
) -> None:
    started, requests, events, _answers = real_worker
    os.write(requests, sent())
    os.close(requests)
    assert started.wait(60) == code
    receiver = Receiver(events)
    if code:
        # Its last words.
        message = receiver.receive()
        assert message is not None
        assert message.fields[0] == Kind.READY
        assert message.fields[3] is not None


def test_a_worker_ends_when_nobody_reads_what_it_says(real_worker: tuple[Any, int, int, int]) -> None:
    started, requests, events, answers = real_worker
    os.close(events)
    os.close(answers)
    Sender(requests).send([Kind.HELLO, PROTOCOL_VERSION + 1])
    assert started.wait(60) in (0, 1)


def test_garbage_in_the_answers_of_a_serving_worker_replaces_it(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1, **SMALL) as store:
        store.put(info(1))
        store.flush()
        pid = pids(store)[0]
        worker = store._core.shards._keepers[0].process
        # Written into its pipe from outside, as a worker gone mad would.
        pipe = os.open(f"/proc/self/fd/{worker._answering.reading}", os.O_WRONLY)
        os.write(pipe, b"\xff" * 64)
        os.close(pipe)
        with pytest.raises((OutcomeUnknownError, ProtocolError)):
            len(store)
        until(lambda: store.workers()[0].pid not in (None, pid) and all_serve(store), "it is replaced")
        assert store.get(digest(1)) == info(1)
        assert signal.SIGKILL.name not in store.workers()[0].last_error
    assert workers_of(os.getpid()) == []
