"""Who holds a file or a device, as far as the kernel tells."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNKNOWN: Final = "unknown"
_NAMED_MAX: Final = 3
_COMMAND_MAX: Final = 120


class Holder(NamedTuple):
    """Who has something.

    :param name: for people
    :param is_ending: whether nobody has it who lives on: whoever took it has ended, and what it started is ending
    """

    name: str
    is_ending: bool


def lock_holder(path: str, status: os.stat_result) -> Holder:
    """Name the processes that hold a flock on a file: by /proc/locks, else by their open descriptors."""
    found = list(_listed_locks(status))
    if not found:
        # The list gives the file system's own device number, which on btrfs or overlayfs is not stat's.
        folder = str(Path(path).parent)

        def has_lock(entry: str, link: str) -> bool:
            # A file that was made without a name shows none, but it shows its folder.
            return str(Path(link).parent) == folder and _is_same(entry, status) and "FLOCK" in _fdinfo(entry)

        found = list(_openers(has_lock))
    return _describe_all(found)


def device_holder(rdev: int, *, but: int = -1) -> Holder:
    """Name the processes that have a block device open, but for the descriptor `but` of this process."""
    mine = f"/proc/{os.getpid()}/fd/{but}"

    def has_it(entry: str, link: str) -> bool:
        # The name is looked at first: asking about a file on a server that is gone would hang.
        return entry != mine and link.startswith("/dev/") and _is_device(entry, rdev)

    return _describe_all(list(_openers(has_it)))


def describe(process: int) -> str:
    """Return ``process 123 (command)`` for people; safe to print."""
    import psutil

    try:
        running = psutil.Process(process)
        command = " ".join(running.cmdline()) or running.name()
    except psutil.NoSuchProcess:
        return f"process {process} (ended; one that it started may hold it still)"
    except psutil.Error:
        command = "command not known"
    # A command line is whatever its process says: it must not steer anybody's terminal.
    shown = "".join(character if character.isprintable() else "?" for character in command[:_COMMAND_MAX])
    return f"process {process} ({shown})" + (", this process" if process == os.getpid() else "")


def _describe_all(processes: list[int]) -> Holder:
    ending = all(_is_ending(process) for process in processes)
    named = [describe(process) for process in dict.fromkeys(processes)]
    if len(named) > _NAMED_MAX:
        named[_NAMED_MAX:] = [f"{len(named) - _NAMED_MAX} more"]
    return Holder("; ".join(named) or UNKNOWN, ending)


def _is_ending(process: int) -> bool:
    """Whether a process has ended, or is a worker whose core has: the kernel ends that too."""
    import psutil

    try:
        running = psutil.Process(process)
        command = running.cmdline()
        if running.status() == psutil.STATUS_ZOMBIE or not command:
            return True
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    return (
        "siltstone_workers" in command and command[-1].isdigit() and not psutil.pid_exists(int(command[-1]))
    )


def _listed_locks(status: os.stat_result) -> Iterator[int]:
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        # "1: FLOCK  ADVISORY  WRITE 5277 fe:00:2272328 0 EOF"; those who wait have "->" in the second place.
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].isdigit() or fields[4] == "0":
            continue
        major, minor, inode = fields[5].split(":")
        if (int(major, 16), int(minor, 16)) == device and int(inode) == status.st_ino:
            yield int(fields[4])


def _openers(matches: Callable[[str, str], bool]) -> Iterator[int]:
    """Yield the processes with a descriptor that `matches`, given its path in /proc and what it names."""
    for process in _names("/proc"):
        if not process.isdigit():
            continue
        folder = f"/proc/{process}/fd"
        for number in _names(folder):
            try:
                link = str(Path(folder, number).readlink())
            except OSError:
                continue
            if matches(f"{folder}/{number}", link):
                yield int(process)
                break


def _names(folder: str) -> list[str]:
    try:
        return [entry.name for entry in Path(folder).iterdir()]
    except OSError:  # ended meanwhile, or somebody else's
        return []


def _fdinfo(entry: str) -> str:
    try:
        return Path(entry.replace("/fd/", "/fdinfo/")).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _is_same(entry: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(entry).stat(), status)
    except OSError:
        return False


def _is_device(entry: str, rdev: int) -> bool:
    try:
        status = Path(entry).stat()
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev == rdev
