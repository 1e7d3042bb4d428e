"""A store on a medium with faults that is put to batch by batch, so that its shards fill alike."""

from __future__ import annotations

import numpy as np
from store_faults import nothing
from store_media import Medium, open_settled
from store_records import hashes, rows

import siltstone
from siltstone.shard.spares import wants_spare

MIB = 1 << 20
SHARDS = 4
#: records of one put, and the bytes of them that come to one shard, generously
BATCH = 400
PART = BATCH * 60 // SHARDS


class Filling:
    """A store that is put to batch by batch, so that its shards fill alike."""

    def __init__(self, path, faults) -> None:
        self.path = path
        self.faults = faults
        self.store = open_settled(Medium(f"faulty:{path}"), faults.host())
        self.group = self.store._core.shards.group
        self.shards = list(self.group.shards.values())
        self.count = 0
        #: the numbers of what was put
        self.given = []

    def put(self, batches=1):
        """Put more records than any that were put before."""
        records = range(self.count, self.count + batches * BATCH)
        self.count = records.stop
        self.store.put_many(*rows(records))
        self.given.append(np.asarray(records))

    def put_until_next_are_wanted(self):
        while not any(map(wants_spare, self.shards)):
            self.put()

    def fill(self):
        """Make the next journals ready, and put until the active ones hardly take anything; all that is durable."""
        self.put_until_next_are_wanted()
        self.group.tick()
        while not any(shard.journal.room < PART for shard in self.shards):
            self.put()
        self.store.flush()
        assert all(shard.spare is not None and shard.journal.room < 2 * PART for shard in self.shards)

    def put_into(self, shard, count):
        """Put so many records that are this shard's, and no others."""
        candidates = range(self.count, self.count + (count + 100) * 2 * SHARDS)
        self.count = candidates.stop
        mine = self.store._core.router.shards_of(self.store._default.id, hashes(candidates)) == shard.number
        numbers = np.asarray(candidates)[mine][:count]
        assert len(numbers) == count
        self.store.put_many(*rows(numbers))
        self.given.append(numbers)

    def journals(self):
        return [shard.journal.extent.id for shard in self.shards]

    def writes_and_flushes(self, act):
        """How often the superblock was written, in two slots each time, and how often the medium flushed."""
        self.faults.log.clear()
        act()
        slots = [offset for what, offset, _length in self.faults.log if what == "write" and offset < MIB]
        assert len(slots) % 2 == 0
        return len(slots) // 2, sum(what == "flush" for what, _offset, _length in self.faults.log)

    def reopened(self):
        """Give the store up as a process that dies does, and open it again."""
        self.faults.write = self.faults.flush = nothing
        self.store._core.abandon()
        return siltstone.open(self.path)
