"""Opens the hash stores of a shard for lookups, in the process that writes the shard or in any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siltstone.format.seal import journal_key
from siltstone.hash_store.older import OlderStores
from siltstone.hash_store.view import HashStoreView
from siltstone.volume.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siltstone.format.superblock import Extent
    from siltstone.index.types import KeyTypes
    from siltstone.volume.backend import Backend

    #: a hash store: extent id, generation, offset and length of its extent [bytes]
    Listed = tuple[int, int, int, int]


def listed(extents: Sequence[Extent]) -> list[Listed]:
    """How an index lists the hash stores in some extents."""
    return [(extent.id, extent.generation, extent.offset, extent.length) for extent in extents]


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
        self._open: dict[Listed, HashStoreView] = {}

    def open(self, listing: Sequence[Listed]) -> OlderStores:
        """These hash stores, newest first; DamageError where the filter of one is not as it was written."""
        self._open = {one: self._open.get(one) or self._for_lookups(one) for one in listing}
        return OlderStores(self._open.values())

    def view(self, one: Listed) -> HashStoreView:
        """One hash store, verified but for its record pages."""
        _number, _generation, offset, length = one
        data = self._backend.map(offset, length)
        return self._view(
            one, memoryview(bytes(self._backend.read(offset, length))) if data is None else data
        )

    def _for_lookups(self, one: Listed) -> HashStoreView:
        _number, _generation, offset, length = one
        data = self._backend.map(offset, length)
        if data is None:
            return self.view(one)
        view = self._view(one, data)
        if isinstance(data.obj, Mapping):
            # The filter was read in one go; from now on each hit wants one page.
            data.obj.expect_random_reads()
        return view

    def _view(self, one: Listed, data: memoryview) -> HashStoreView:
        number, generation, offset, _length = one
        key = journal_key(self._uuid, number, generation)
        return HashStoreView(data, key, self._types, self._uuid, extent=number, offset=offset)
