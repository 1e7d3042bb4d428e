from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from numpy import bool_, uint8
from numpy.typing import NDArray

from siltstone.format.kernels import SealKey
from siltstone.hash_store.extent import HashStoreHeader
from siltstone.index.types import Bytes, KeyTypes

NOT_FOUND: Final[int]
FOUND: Final[int]
DELETED: Final[int]

class Counts(NamedTuple):
    entries: int
    tombstones: int
    part_entries: int
    part_tombstones: int

class HashStoreView:
    types: KeyTypes
    header: HashStoreHeader
    extent: int
    offset: int
    memory_bytes: int
    def __init__(
        self,
        data: Bytes,
        key: SealKey,
        types: KeyTypes,
        secret: Bytes,
        *,
        extent: int = 0,
        offset: int = 0,
        expect: Callable[[int, int], None] | None = None,
    ) -> None: ...
    def over(self, data: Bytes) -> HashStoreView: ...
    @property
    def records(self) -> int: ...
    @property
    def tombstones(self) -> int: ...
    @property
    def last_fence(self) -> int | None: ...
    @property
    def clusters(self) -> int: ...
    def get(self, kind: int, key: Bytes) -> bytes | None: ...
    def find_many(
        self, kind: int, keys: NDArray[uint8], row_size: int = 254
    ) -> tuple[NDArray[uint8], NDArray[uint8]]: ...
    def may_hold(self, kind: int, keys: NDArray[uint8]) -> NDArray[bool_]: ...
    def verify(self, first: int = 0, count: int | None = None, least: int = 0) -> Counts: ...
    def pages(self) -> Iterator[bytes]: ...
    def page_entries(self, number: int) -> bytes: ...
