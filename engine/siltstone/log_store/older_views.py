"""Opens the hash stores of a shard for lookups, in the process that writes the shard or in any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.format.seal import journal_key
from siltstone.format.superblock import NO_PART
from siltstone.hash_store.older import Listed, OlderStores
from siltstone.hash_store.view import HashStoreView
from siltstone.volume.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from siltstone.format.superblock import Extent
    from siltstone.index.types import KeyTypes
    from siltstone.volume.backend import Backend

    #: an extent of a hash store: id, generation, offset and length [bytes]
    Place = tuple[int, int, int, int]


def by_store(extents: Iterable[Extent]) -> list[tuple[Extent, ...]]:
    """The hash stores, newest first, that some extents are the parts of; of each its parts by their hashes."""
    stores: dict[int, list[Extent]] = {}
    for extent in extents:
        stores.setdefault(extent.order, []).append(extent)
    return [tuple(sorted(stores[order], key=first_hash)) for order in sorted(stores, reverse=True)]


def first_hash(extent: Extent) -> int:
    """Entries with a smaller hash do not count in this part of a hash store."""
    assert extent.part is not None
    return extent.part.first


def listed(extents: Iterable[Extent]) -> list[Listed]:
    """How an index lists the parts of hash stores in some extents, however these are ordered."""
    return [
        Listed(extent.id, extent.generation, extent.offset, extent.length, number, *(extent.part or NO_PART))
        for number, parts in enumerate(by_store(extents))
        for extent in parts
    ]


def _place(one: Listed) -> Place:
    return one.extent, one.generation, one.offset, one.length


class OlderViews:
    """The hash stores of one shard as one process has them open; those that stay are opened once.

    :param backend: where they are. What it cannot map is read into memory whole
    :param uuid: the volume's
    :param types: which types have keys
    """

    def __init__(self, backend: Backend, uuid: bytes, types: KeyTypes) -> None:
        self._backend = backend
        self._uuid = uuid
        self._types = types
        self._open: dict[Place, HashStoreView] = {}

    def open(self, listing: Sequence[tuple[int, ...]]) -> OlderStores:
        """These parts of hash stores, each what :class:`Listed` has; DamageError where the filter of one is not as
        it was written, ValueError where they do not go together."""
        listed = [Listed(*one) for one in listing]
        self._open = {
            _place(one): self._open.get(_place(one)) or self._for_lookups(_place(one)) for one in listed
        }
        return OlderStores((self._open[_place(one)], one) for one in listed)

    def view(self, extent: Extent) -> HashStoreView:
        """A part of a hash store, verified but for its record pages."""
        return self._whole((extent.id, extent.generation, extent.offset, extent.length))

    def to_read(self, extent: Extent) -> HashStoreView:
        """As :meth:`view`, of a part that is open for lookups, to read it in order."""
        opened = self._open.get((extent.id, extent.generation, extent.offset, extent.length))
        data = self._backend.map(extent.offset, extent.length)
        if opened is None:
            return self.view(extent)
        return opened if data is None else opened.over(data)

    def _whole(self, one: Place) -> HashStoreView:
        _number, _generation, offset, length = one
        data = self._backend.map(offset, length)
        return self._view(
            one, memoryview(bytes(self._backend.read(offset, length))) if data is None else data
        )

    def _for_lookups(self, one: Place) -> HashStoreView:
        _number, _generation, offset, length = one
        data = self._backend.map(offset, length)
        if data is None:
            return self._whole(one)
        mapping = data.obj
        if not isinstance(mapping, Mapping):
            return self._view(one, data)
        # The header is one page, and so is what a hit wants; only fences and filter are read in one go.
        mapping.expect_random_reads()
        view = self._view(one, data, mapping.expect_reads_of)
        mapping.expect_random_reads()
        return view

    def _view(
        self, one: Place, data: memoryview, expect: Callable[[int, int], None] | None = None
    ) -> HashStoreView:
        number, generation, offset, _length = one
        key = journal_key(self._uuid, number, generation)
        return HashStoreView(data, key, self._types, self._uuid, extent=number, offset=offset, expect=expect)
