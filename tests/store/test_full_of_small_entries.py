"""A full volume of entries that are smaller than what deletes them: it can be cleaned all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from real_media import mounted
from store_records import hashes

import siltstone
from siltstone.errors import DiskFullError
from siltstone.plugin import EntryType, hookimpl
from siltstone.plugin.host import PluginHost

pytestmark = pytest.mark.root

BLOCK = 64 * 1024
STEP = 500


@dataclass(frozen=True)
class Mark:
    """A key and nothing else: 34 bytes as an entry; a deletion of it has 35."""

    key: bytes


MARK = EntryType(
    id=0x20,
    name="mark",
    version=1,
    record=Mark,
    encode=lambda mark: mark.key,
    decode=lambda payload: Mark(bytes(payload)),
    fields=(("key", "V32"),),
    key=(0, 32),
)


class Provider:
    @hookimpl
    def siltstone_entry_types(self):
        return [MARK]


def marks(numbers):
    return hashes(numbers).view("V32").reshape(-1)


@pytest.mark.parametrize(
    ("blocks", "shards"), [(30, 1), (60, 1), (100, 1), (30, 2), (40, 2), (30, 4), (60, 4)]
)
@pytest.mark.parametrize("oldest", [True, False], ids=["oldest", "anywhere"])
def test_all_of_it_can_be_deleted(tmp_path, blocks, shards, oldest):
    """What is dead is no more than what deletes it, which is given up only where all that is older is clean."""
    with (
        mounted(
            "tmpfs", tmp_path / "disk", "-t", "tmpfs", "-o", f"size={1024 + 64 * blocks * shards}k"
        ) as disk,
        siltstone.open(
            disk / "store.silt",
            shards=shards,
            erase_block=BLOCK,
            index_memory=4 << 20,
            workers=0,
            plugins=PluginHost.load(extra=[Provider()]),
        ) as store,
    ):
        count = 0
        with pytest.raises(DiskFullError):
            while True:
                store.put_many(marks(range(count, count + STEP)), entry_type="mark")
                count += STEP
        # Of the last ones each shard has taken its part whole, or nothing of it.
        there = np.flatnonzero(store.get_many(hashes(range(count + STEP)), entry_type="mark")[0])
        order = there if oldest else np.random.default_rng(1).permutation(there)
        for start in range(0, len(order), STEP):
            doomed, left = order[start : start + STEP], order[start + STEP :]
            assert store.delete_many(hashes(doomed), entry_type="mark").all()
            if start % (40 * STEP) == 0:
                store.flush()
                assert not store.get_many(hashes(order[: start + STEP]), entry_type="mark")[0].any()
                assert store.get_many(hashes(left), entry_type="mark")[0].all()
        assert len(store) == 0


def test_the_active_journal_is_not_closed_while_it_has_room(path):
    """It may be that of another shard than the one that needs space, which would have to find a new one."""
    with siltstone.open(
        path, shards=1, erase_block=BLOCK, workers=0, plugins=PluginHost.load(extra=[Provider()])
    ) as store:
        group = store._core.shards.group
        shard = group.shards[0]
        store.put_many(marks(range(10_000)), entry_type="mark")
        store.delete_many(hashes(range(10_000)), entry_type="mark")
        active = shard.journal.extent.id
        assert shard.journal.room > shard.journal.extent.length // 8
        assert not group.upkeep.clean_all(shard, end=group.volume.ports.clock() + 60)
        assert shard.journal is not None
        assert shard.journal.extent.id == active
