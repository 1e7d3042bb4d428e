from collections.abc import Iterable, Iterator

from numpy import uint8
from numpy.typing import NDArray

from siltstone.hash_store.older import OlderStores
from siltstone.hash_store.view import HashStoreView

def merge(
    views: Iterable[HashStoreView],
    *,
    drop_deletes: bool = False,
    below: OlderStores | None = None,
    chunk_bytes: int = 1 << 20,
) -> Iterator[NDArray[uint8]]: ...
