"""Faults in how journals are packed, and hash stores made and merged; each as one who does not think of it would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siltstone.format.constants import CLUSTER_SIZE
from siltstone.hash_store.merging import Merging
from siltstone.log_store.log_store import LogStore
from siltstone.shard import merging, sweeping
from siltstone.shard.filling import Unflushed
from siltstone.shard.incarnation import Incarnation
from siltstone.shard.packing import Packing
from siltstone.volume.volume import Volume

if TYPE_CHECKING:
    Plant = Any


def packing_without_a_flush_of_what_replaced_it(plant: Plant) -> None:
    usual = Packing.__init__

    def init(self: Any, shard: Any, run: Any, flush: Any) -> None:
        usual(self, shard, run, lambda: None)

    plant.setattr(Packing, "__init__", init)


def copies_published_before_they_are_flushed(plant: Plant) -> None:
    """Journals that were packed, and hash stores."""
    plant.setattr(Unflushed, "flush", lambda self: None)


def deletions_given_up_although_something_is_older(plant: Plant) -> None:
    usual = LogStore.living

    def living(self: Any, *arguments: Any, keep_deletes: bool) -> Any:
        return usual(self, *arguments, keep_deletes=False)

    plant.setattr(LogStore, "living", living)


def the_index_lets_go_before_the_hash_store_is_listed(plant: Plant) -> None:
    usual = Incarnation._switch

    def switch(self: Any) -> None:
        for piece in self._keyed:
            self._shard.store.drop(piece.stream, piece.places)
        usual(self)

    plant.setattr(Incarnation, "_switch", switch)


def a_merge_that_keeps_the_oldest(plant: Plant) -> None:
    class Reversed(Merging):
        def __init__(self, stores: Any, **options: Any) -> None:
            super().__init__(stores[::-1], **options)

        def left(self) -> list[Any]:
            return super().left()[::-1]

    plant.setattr(merging, "Merging", Reversed)


def a_slice_whose_sources_go_before_it_is_flushed(plant: Plant) -> None:
    plant.setattr(merging.Unflushed, "flush", lambda self: None)


def a_sweep_by_what_is_not_flushed(plant: Plant) -> None:
    """By the active journal's entries too, wherever they are."""

    def named(shard: Any) -> Any:
        yield from usual(shard)
        store, journal = shard.store, shard.journal
        tail = memoryview(bytes(journal.tail).ljust(CLUSTER_SIZE, b"\0"))
        stream, places, _largest = store.living(
            journal.extent, tail, journal.writer.index, journal.writer.used, keep_deletes=False
        )
        yield stream, len(places)

    usual = sweeping._named
    plant.setattr(sweeping, "_named", named)


def hash_stores_shown_after_the_replay(plant: Plant) -> None:
    usual = LogStore.replay

    def replay(self: Any, *arguments: Any, **options: Any) -> bytes:
        listed = self.hash_stores
        self.show_hash_stores(())
        last = usual(self, *arguments, **options)
        self.show_hash_stores(listed)
        return last

    plant.setattr(LogStore, "replay", replay)


def deletions_forgotten_while_a_hash_store_is_made(plant: Plant) -> None:
    plant.setattr(LogStore, "gather_deletions", lambda self, *, begin: None)


def a_failed_flush_of_others_forgotten(plant: Plant) -> None:
    plant.setattr(Volume, "flushes_failed", property(lambda self: 0, lambda self, count: None), raising=False)
