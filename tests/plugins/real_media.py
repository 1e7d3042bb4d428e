"""Loop devices, mounts, children and system programs for tests; each is taken apart again at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from siltstone.plugin import BackendOptions
from siltstone_plugins.file import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20

_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def program(name: str) -> str:
    """The path of a system program, or a skipped test."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, *arguments: object) -> str:
    """Run a system program that has to succeed; what it printed."""
    done = subprocess.run(
        [program(name), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{name} {arguments}: {done.stderr}"
    return done.stdout.strip()


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


def need_loop() -> None:
    need_root()
    program("losetup")
    if not Path("/dev/loop-control").exists():
        pytest.skip("the kernel has no loop devices")


def digest(path: object) -> str:
    """The sha256 of all that is in a file or on a device, past the page cache of a device."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["blockdev", "--flushbufs", str(path)], capture_output=True, check=False)
    with Path(str(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def loop_over(
    image: Path, *, sector: int = 512, direct: bool = True, read_only: bool = False
) -> Iterator[str]:
    """A loop device over a file."""
    need_loop()
    options = ["--find", "--show", "--sector-size", str(sector)]
    options += ["--read-only"] if read_only else []
    command = [program("losetup"), *options, *(["--direct-io=on"] if direct else []), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0 and direct:
        # Not every file system takes direct transfers.
        command.remove("--direct-io=on")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(source: object, point: Path, *options: str) -> Iterator[Path]:
    """A file system while it is mounted."""
    need_root()
    point.mkdir(exist_ok=True)
    run("mount", *options, source, point)
    try:
        yield point
    finally:
        run("umount", point)


@contextlib.contextmanager
def child(source: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own that runs `source`; killed in the end if it has not ended by itself."""
    command = [*wrapper, sys.executable, "-c", source, *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def output_of(source: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> str:
    """What a Python of its own prints that runs `source`; it has to succeed."""
    with child(source, *arguments, wrapper=wrapper) as process:
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return printed


def make_file(path, size=MIB, **extra):
    """A published file of `size` bytes, open and locked."""
    backend = open_file(str(path), BackendOptions(create=True, exclusive=True, extra=extra))
    backend.lock()
    backend.grow(size)
    backend.publish()
    return backend


def open_made(path, **options):
    return open_file(str(path), BackendOptions(**options))
