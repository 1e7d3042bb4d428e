"""`blkid` of util-linux, asked what it finds on a device, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

_PLACES: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_SECONDS_MAX: Final = 30
_FOUND, _NOTHING, _AMBIVALENT = 0, 2, 8


def probe(path: str) -> tuple[str, str] | None:
    """Return (name, reason) of what `blkid` finds at `path`, or None: nothing, or no blkid to ask.

    It reads the device and keeps no cache. The reason is "partitioned" or "signature".
    """
    program = shutil.which("blkid", path=_PLACES)
    if program is None:
        return None
    command = [program, "--probe", "--output", "export", path]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS_MAX,
            check=False,
            env={"LC_ALL": "C", "PATH": _PLACES},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == _AMBIVALENT:
        return "several file systems at once", "signature"
    if done.returncode != _FOUND:
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    if "TYPE" in facts:
        return facts["TYPE"], "signature"
    if "PTTYPE" in facts:
        return f"a partition table of type {facts['PTTYPE']}", "partitioned"
    return None
