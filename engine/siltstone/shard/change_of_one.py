"""A change of the superblock that is about one shard; see changes.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siltstone.format.superblock import Superblock


@dataclass(frozen=True, slots=True)
class ChangeOfOne:
    """A change that is about `shard` alone."""

    shard: int

    def shards(self, _superblock: Superblock) -> set[int]:
        """The shards that it is about."""
        return {self.shard}
