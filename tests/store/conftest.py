"""Where stores of these tests lie."""

from __future__ import annotations

import sys
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
def shared_memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own."""
    from real_media import mounted

    with mounted("tmpfs", tmp_path / "shared_memory", "-t", "tmpfs", "-o", "size=1g") as point:
        yield point
