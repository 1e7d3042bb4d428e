"""Find what is to be read: the files under the named paths, each once, opened without following a link.

Memory does not grow with the tree: a folder is read entry by entry, one descriptor or two for each folder on
the way down.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from siltstone.cli.sizes import printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

__all__ = ["Identity", "Note", "Source", "Tally", "Unreadable", "Walker", "identify"]

#: device and inode of a file or folder; (device, -1) is a block device
Identity: TypeAlias = "tuple[int, int]"

#: how many files with several names are remembered until all their names were met
_LINKED_MAX: Final = 1 << 18

#: file systems that the kernel makes up as they are read; some of their files have no end
_KERNEL_FILE_SYSTEMS: Final = frozenset(
    [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    ]
)

# A link is never followed, and what only looks like a file (a pipe, a terminal) never waited for or taken.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass
class Tally:
    """What the walk met, beside what it read. Written by the thread that walks."""

    files: int = 0
    unreadable: int = 0
    changed: int = 0
    hard_links: int = 0
    symlinks: int = 0
    special: int = 0


class Source(NamedTuple):
    """An open file or block device. Who gets it closes `descriptor`.

    :param name: as it is shown to people
    :param size: when it was opened [bytes]
    """

    name: str
    descriptor: int
    size: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or folder that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that people should know, and that is no failure."""

    text: str


def identify(status: os.stat_result) -> Identity:
    """Return what makes two names one file, or two nodes one block device."""
    return (status.st_rdev, -1) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _kernel_devices() -> dict[int, str]:
    """The device numbers of mounted kernel file systems, each with its type."""
    found = {}
    with suppress(OSError), Path("/proc/self/mountinfo").open("rb") as lines:
        for line in lines:
            mount, _, source = line.partition(b" - ")
            kind = source.split(b" ", 1)[0].decode("ascii", "replace")
            if kind in _KERNEL_FILE_SYSTEMS:
                major, minor = mount.split(b" ", 3)[2].split(b":")
                found[os.makedev(int(major), int(minor))] = kind
    return found


class _Folder:
    """An open folder that is being walked."""

    __slots__ = ("descriptor", "device", "entries", "name")

    def __init__(self, name: str, descriptor: int, device: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.device = device
        self.entries = os.scandir(descriptor)

    def path_of(self, entry_name: str) -> str:
        """Return how an entry is shown. It is opened by its name and the folder's descriptor alone."""
        return f"{self.name.rstrip('/')}/{entry_name}"

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


@dataclass
class Walker:
    """Walks named paths; each file, folder and device is visited once however often it was named.

    A file with several names (hard links) is given once; see `_LINKED_MAX` for the bound of that.

    :param paths: what was named; a link among them is followed, in a folder none is
    :param tally: counts what is met
    :param spared: what must not be read, though it lies in a folder (the store itself)
    """

    paths: Iterable[str]
    tally: Tally
    spared: frozenset[Identity] = frozenset()
    _named: dict[Identity, str] = field(default_factory=dict)
    _linked: dict[Identity, int] = field(default_factory=dict)
    _kernel: dict[int, str] = field(default_factory=_kernel_devices)

    def walk(self) -> Generator[Source | Unreadable | Note, None, None]:
        """Yield each file once, open, and what could not be opened, as they are met."""
        roots = []
        for path in self.paths:
            try:
                status = os.stat(path)  # noqa: PTH116 - a path of any bytes, as it was given
            except (OSError, ValueError) as error:
                yield self._unreadable(path, error)
                continue
            identity = identify(status)
            if identity not in self._named and identity not in self.spared:
                # All are known before the first is walked: one that lies in another is left to its turn.
                self._named[identity] = path
                roots.append((path, identity))
        for path, identity in roots:
            yield from self._visit_named(path, identity)

    def _unreadable(self, name: str, error: Exception | str) -> Unreadable:
        self.tally.unreadable += 1
        reason = _reason(error) if isinstance(error, OSError) else str(error)
        return Unreadable(printable(name), reason)

    def _visit_named(self, path: str, identity: Identity) -> Iterator[Source | Unreadable | Note]:
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)):
                # Never opened: to open a device may already do something.
                yield self._unreadable(path, "not a file, a folder or a block device")
                return
            descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            yield self._unreadable(path, error)
            return
        status = os.fstat(descriptor)
        if identify(status) != identity:
            os.close(descriptor)
            yield self._unreadable(path, "it was replaced while it was opened")
        elif stat.S_ISDIR(mode):
            yield from self._walk_folder(path, descriptor, status.st_dev)
        else:
            yield self._source(path, descriptor, status)

    def _source(self, name: str, descriptor: int, status: os.stat_result) -> Source | Unreadable:
        size = status.st_size
        if stat.S_ISBLK(status.st_mode):
            try:
                size = os.lseek(descriptor, 0, os.SEEK_END)
            except OSError as error:
                os.close(descriptor)
                return self._unreadable(name, error)
        self.tally.files += 1
        return Source(name, descriptor, size)

    def _walk_folder(self, name: str, descriptor: int, device: int) -> Iterator[Source | Unreadable | Note]:
        # No recursion: a tree may be deeper than Python's stack.
        folders: list[_Folder] = []
        try:
            found = self._enter(name, descriptor, device)
            if isinstance(found, Unreadable):
                yield found
            else:
                folders.append(found)
            while folders:
                folder = folders[-1]
                try:
                    entry = next(folder.entries, None)
                except OSError as error:
                    yield self._unreadable(folder.name, error)
                    entry = None
                if entry is None:
                    folders.pop().close()
                    continue
                step = self._step(folder, entry)
                if isinstance(step, _Folder):
                    folders.append(step)
                elif step is not None:
                    yield step
        finally:
            for folder in folders:
                folder.close()

    def _enter(self, name: str, descriptor: int, device: int) -> _Folder | Unreadable:
        try:
            return _Folder(name, descriptor, device)
        except OSError as error:
            os.close(descriptor)
            return self._unreadable(name, error)

    def _step(self, folder: _Folder, entry: os.DirEntry[str]) -> _Folder | Source | Unreadable | Note | None:
        """Take one entry of a folder; None where there is nothing to read in it."""
        try:
            if entry.is_symlink():
                self.tally.symlinks += 1
            elif entry.is_dir(follow_symlinks=False):
                return self._step_into(folder, entry.name)
            elif entry.is_file(follow_symlinks=False):
                return self._step_on(folder, entry.name)
            else:
                self.tally.special += 1
        except OSError as error:
            return self._unreadable(folder.path_of(entry.name), error)
        return None

    def _step_into(self, folder: _Folder, entry_name: str) -> _Folder | Unreadable | Note | None:
        flags = _OPEN_FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW
        descriptor = os.open(entry_name, flags, dir_fd=folder.descriptor)
        status = os.fstat(descriptor)
        name = folder.path_of(entry_name)
        if identify(status) in self._named:
            os.close(descriptor)
            return None
        if status.st_dev != folder.device and status.st_dev in self._kernel:
            os.close(descriptor)
            kind = self._kernel[status.st_dev]
            return Note(f"{printable(name)}: not read, a file system of the kernel ({kind})")
        return self._enter(name, descriptor, status.st_dev)

    def _step_on(self, folder: _Folder, entry_name: str) -> Source | Unreadable | None:
        descriptor = os.open(entry_name, _OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=folder.descriptor)
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            # It was a file when the folder was read.
            self.tally.special += 1
        elif identity in self._named or identity in self.spared:
            pass
        elif status.st_nlink > 1 and self._met(identity, status.st_nlink):
            self.tally.hard_links += 1
        else:
            return self._source(folder.path_of(entry_name), descriptor, status)
        os.close(descriptor)
        return None

    def _met(self, identity: Identity, links: int) -> bool:
        """Whether a file with several names was met under another one."""
        left = self._linked.pop(identity, None)
        if left is None:
            if len(self._linked) >= _LINKED_MAX:
                del self._linked[next(iter(self._linked))]
            self._linked[identity] = links - 1
            return False
        if left > 1:
            self._linked[identity] = left - 1
        return True
