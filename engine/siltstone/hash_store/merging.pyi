from collections.abc import Iterable, Iterator
from typing import NamedTuple

from numpy import uint8
from numpy.typing import NDArray

from siltstone.hash_store.older import OlderStores
from siltstone.hash_store.view import HashStoreView
from siltstone.index.types import Bytes

#: a part of a hash store: its view, the least hash that counts in it, entries and tombstones that do
Part = tuple[HashStoreView, int, int, int]

class Left(NamedTuple):
    part: int
    entries: int
    tombstones: int

class Merging:
    def __init__(
        self,
        stores: Iterable[Iterable[Part]],
        *,
        drop_deletes: bool = False,
        below: OlderStores | None = None,
        overruled: Bytes | None = None,
    ) -> None: ...
    def slice(
        self, entries: int, entry_bytes: int, *, chunk_bytes: int = 1 << 20
    ) -> Iterator[NDArray[uint8]]: ...
    @property
    def place(self) -> int | None: ...
    def left(self) -> list[Left]: ...
