"""Starts the program that a worker is, and says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from siltstone.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence

_STDERR: Final = 2


def identify(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that is readable once a process is gone; where there is none to be had, the process is ended."""
    try:
        return os.pidfd_open(process.pid)
    except BaseException:
        process.kill()
        process.wait()
        raise


def describe_exit(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"it ended with exit code {code}"
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def start_worker(
    pipes: list[int], inherited: Sequence[int], path: Sequence[str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m siltstone_workers``: a program of its own, so that nothing of the caller's runs again.

    :param path: where it finds its modules; None: where this process does now
    """
    if not sys.executable:
        raise WorkerError("this program has no Python interpreter to start workers with; open with workers=0")
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "siltstone_workers", *map(str, pipes), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if _is_open(_STDERR) else subprocess.DEVNULL,
            pass_fds=(*pipes, *inherited),
            cwd="/",
            env={
                # NumPy's threads for matrices, of which a worker has none, would only take its processors at the start.
                "OPENBLAS_NUM_THREADS": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(library_first(module_path() if path is None else path)),
            },
            # Not in the terminal's group: its interrupt is for the caller.
            start_new_session=True,
        )
    except OSError as error:
        raise WorkerError(f"a worker could not be started: {error}", cause=str(error)) from error


def module_path() -> list[str]:
    """Where the caller finds its modules: absolute, whatever directory it is in by now."""
    found: dict[str, None] = {}
    for entry in sys.path:
        # What is relative is where modules were found first, also after the caller has gone elsewhere.
        finder = sys.path_importer_cache.get(entry)
        known = getattr(finder, "path", None)
        # The current directory may have been removed.
        with suppress(OSError):
            if isinstance(known, str):
                found[str(Path(known).absolute())] = None
            found[str(Path(entry).absolute())] = None
    return list(found)


def library_first(path: Sequence[str]) -> list[str]:
    """The same with the standard library in front, as it was for the caller when its interpreter began.

    Else a module beside the caller's script that is named like one of those that Python begins with (types.py) would be
    taken for it. In which order a worker finds what it loads later its configuration says.
    """
    library = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    library |= {os.path.join(folder, "lib-dynload") for folder in library}  # noqa: PTH118 - compared as text
    return sorted(path, key=lambda entry: os.path.realpath(entry) not in library)


def _is_open(descriptor: int) -> bool:
    """Whether there is anything under this number: a daemon may have closed its standard streams."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
