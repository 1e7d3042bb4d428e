"""The command line as a process of its own, and a plain count of blocks to compare it with."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def start(
    *arguments: str | bytes | Path, prefix: Sequence[str] = (), **options: Any
) -> subprocess.Popen[bytes]:
    command = [*prefix, sys.executable, "-m", "siltstone.cli", *map(os.fsencode, arguments)]
    # What runs in the background of a shell ignores it, and what it starts would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Outcome(process.returncode, out.decode(), err.decode())


def cut_fixed(data: bytes, size: int = 4096) -> list[bytes]:
    return [data[offset : offset + size] for offset in range(0, len(data), size)]


def count_blocks(*contents: bytes, size: int = 4096, function: Any = hashlib.sha256) -> tuple[int, int, int]:
    """Blocks, different ones, and bytes of the different ones, counted the plain way."""
    blocks = [block for content in contents for block in cut_fixed(content, size)]
    different = {function(block).digest(): len(block) for block in blocks}
    return len(blocks), len(different), sum(different.values())
