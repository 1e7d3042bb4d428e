from collections.abc import Iterable
from typing import NamedTuple

from numpy import bool_, uint8
from numpy.typing import NDArray

from siltstone.errors import DamageError
from siltstone.hash_store.view import HashStoreView
from siltstone.index.mapped import MappedIndex

class Listed(NamedTuple):
    extent: int
    generation: int
    offset: int
    length: int
    store: int
    first: int
    entries: int
    tombstones: int

class OlderStores:
    parts: tuple[HashStoreView, ...]
    listing: tuple[Listed, ...]
    def __init__(self, parts: Iterable[tuple[HashStoreView, tuple[int, ...]]]) -> None: ...
    @property
    def version(self) -> int: ...
    @property
    def records(self) -> int: ...
    def states_of(self, kind: int, keys: NDArray[uint8]) -> NDArray[uint8]: ...
    def holding(self, stream: NDArray[uint8], count: int) -> NDArray[bool_]: ...
    def attach(self, index: MappedIndex, version: int) -> None: ...
    def damage(self, part: int, cluster: int) -> DamageError: ...
