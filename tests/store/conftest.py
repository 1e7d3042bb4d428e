"""Where stores of these tests lie."""

from __future__ import annotations

import os
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filling_store import SHARDS, Filling
from store_faults import Faults, nothing
from store_folders import quick_temporary_folder
from store_media import Medium, create_settled, open_settled

from siltstone.errors import SiltstoneError
from siltstone.format.constants import CLUSTER_SIZE
from siltstone.plugin.host import PluginHost
from siltstone.shard import sizing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siltstone import Store

# Loop devices, mounts and children are made in one place, beside the tests of the backends.
sys.path.append(str(Path(__file__).parents[1] / "plugins"))


#: tests of what a caller sees, whoever runs the shards: run with each of these numbers of workers, at every commit
#: and at full size
FOR_ANY_WORKERS = {
    "test_front_door": ((0, 2), (0, 1, 2, 4)),
    "test_columns": ((0,), (0, 1, 2, 4)),
    "test_opening": ((0, 2), (0, 1, 2, 4)),
    "test_threads": ((0, 2), (0, 1, 2, 4)),
    "test_disk_full": ((0, 2), (0, 1, 2, 4)),
    "test_packing": ((0, 2), (0, 1, 2, 4)),
    "test_on_full": ((0, 2), (0, 1, 2, 4)),
    "test_incarnation": ((0, 2), (0, 1, 2, 4)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what holds for any number of workers with several."""
    numbers = FOR_ANY_WORKERS.get(metafunc.module.__name__.rpartition(".")[2])
    if numbers is not None:
        chosen = numbers[os.environ.get("SILTSTONE_BATTERY") == "full"]
        metafunc.parametrize("workers_where_nobody_says", chosen, indirect=True, ids="workers={}".format)


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


@pytest.fixture
def faults() -> Faults:
    """What the medium of `faulty_store` shall do."""
    return Faults()


@pytest.fixture
def store(path: Path, host: PluginHost) -> Iterator[Store]:
    """A store of one shard whose housekeeping is done when the test says so; modules may have another one."""
    create_settled(Medium(str(path)), host, shards=1)
    with open_settled(Medium(str(path)), host) as opened:
        yield opened


@pytest.fixture
def faulty_store(path: Path, host: PluginHost, faults: Faults) -> Iterator[Store]:
    """A store of one shard whose housekeeping is done when the test says so."""
    create_settled(Medium(str(path)), host, shards=1)
    opened = open_settled(Medium(f"faulty:{path}"), faults.host())
    yield opened
    for hook in ("write", "flush", "discard", "grow"):
        setattr(faults, hook, nothing)
    with suppress(SiltstoneError):
        opened.close()


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of hash stores have some pages, so that few records lie in many."""
    chance = random.Random(7)
    monkeypatch.setattr(
        sizing, "part_size", lambda _superblock, _shard: chance.randrange(4, 6) * CLUSTER_SIZE
    )


@pytest.fixture
def filling(path, host, faults):
    """A store of several shards that fill alike."""
    create_settled(Medium(str(path)), host, shards=SHARDS)
    made = Filling(path, faults)
    yield made
    faults.write = faults.flush = nothing
    made.store._core.abandon()
