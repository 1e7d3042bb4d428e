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


#: tests of what a caller sees, whoever runs the shards
FOR_ANY_WORKERS = {"test_front_door", "test_columns", "test_opening", "test_threads", "test_disk_full"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what holds for any number of workers with several."""
    if metafunc.module.__name__.rpartition(".")[2] in FOR_ANY_WORKERS:
        metafunc.parametrize(
            "workers_where_nobody_says", [0, 1, 2, 4], indirect=True, ids="workers={}".format
        )


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
