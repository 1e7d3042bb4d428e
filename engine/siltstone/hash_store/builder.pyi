from collections.abc import Callable

from siltstone.format.kernels import SealKey
from siltstone.hash_store.extent import HashStoreHeader
from siltstone.index.types import Bytes, KeyTypes

class HashStoreBuilder:
    entries: int
    tombstones: int
    entry_bytes: int
    def __init__(
        self,
        key: SealKey,
        generation: int,
        types: KeyTypes,
        secret: Bytes,
        write: Callable[[int, memoryview], object],
        *,
        entries_max: int,
        clusters: int,
    ) -> None: ...
    def add(self, stream: Bytes) -> None: ...
    def finish(self) -> HashStoreHeader: ...
