"""Where stores of these tests lie."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from siltstone.plugin.host import PluginHost

if TYPE_CHECKING:
    from collections.abc import Iterator

# Loop devices, mounts and children are made in one place, beside the tests of the backends.
sys.path.append(str(Path(__file__).parents[1] / "plugins"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store can be made."""
    return tmp_path / "store.silt"


@pytest.fixture(scope="session")
def host() -> PluginHost:
    """The plugins, loaded once, for tests that open stores by the hundred."""
    return PluginHost.load(None)


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder whose flushes cost nothing, where there is one: for tests that make stores by the hundred."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="siltstone-test-", dir=memory if usable else None) as folder:
        yield Path(folder)
