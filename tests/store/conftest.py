"""Where stores of these tests lie."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_folders import quick_temporary_folder

from siltstone.plugin.host import PluginHost

if TYPE_CHECKING:
    from collections.abc import Iterator

# Loop devices, mounts and children are made in one place, beside the tests of the backends.
sys.path.append(str(Path(__file__).parents[1] / "plugins"))


@pytest.fixture
def path(quick_folder: Path) -> Path:
    """Where a store can be made."""
    return quick_folder / "store.silt"


@pytest.fixture(scope="session")
def host() -> PluginHost:
    """The plugins, loaded once, for tests that open stores by the hundred."""
    return PluginHost.load(None)


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder whose flushes cost little, where there is one: for tests that make many stores."""
    with quick_temporary_folder() as folder:
        yield folder
