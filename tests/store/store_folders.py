"""Folders for stores that are made by the hundred."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def quick_temporary_folder() -> Iterator[Path]:
    """A folder in memory where there is one, else anywhere; gone at the end."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="siltstone-test-", dir=memory if usable else None) as folder:
        yield Path(folder)
