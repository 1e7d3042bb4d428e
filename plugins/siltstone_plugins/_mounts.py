"""The mount table, and the file systems in it whose locks end at this machine though their files do not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPE = re.compile(r"\\([0-7]{3})")
# Mount options with which the client answers locks by itself.
_LOCAL_OPTIONS: Final = {
    "nfs": frozenset({"nolock", "local_lock=all", "local_lock=flock"}),
    "nfs4": frozenset({"nolock", "local_lock=all", "local_lock=flock"}),
    "cifs": frozenset({"nobrl", "noposixbrl"}),
    "smb3": frozenset({"nobrl", "noposixbrl"}),
    "lustre": frozenset({"localflock", "noflock"}),
}
# Types that never ask the server.
_LOCAL_ALWAYS: Final = frozenset(
    {"9p", "afs", "coda", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.davfs", "vboxsf"}
)


class Mount(NamedTuple):
    """One line of the mount table."""

    device: int
    point: str
    kind: str
    source: str
    options: frozenset[str]


def mounts() -> Iterator[Mount]:
    """Yield what is mounted in this process's namespace."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        kind, source, options = fields[fields.index("-", 6) + 1 :][:3]
        major, minor = fields[2].split(":")
        yield Mount(
            os.makedev(int(major), int(minor)),
            unescape(fields[4]),
            kind,
            unescape(source),
            frozenset(options.split(",")),
        )


def unescape(text: str) -> str:
    """Return a name from /proc with its octal escapes undone."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def local_lock(device: int) -> str | None:
    """Name the file system on `device` (an st_dev) if its locks do not reach other machines; else None."""
    for mount in mounts():
        if mount.device != device:
            continue
        if mount.kind in _LOCAL_ALWAYS:
            return mount.kind
        hits = _LOCAL_OPTIONS.get(mount.kind, frozenset()) & mount.options
        if hits:
            return f"{mount.kind} mounted with {', '.join(sorted(hits))}"
    return None
