from collections.abc import Iterable, Iterator

from numpy import uint8
from numpy.typing import NDArray

from siltstone.hash_store.view import HashStoreView

def merge(
    views: Iterable[HashStoreView], *, drop_deletes: bool = False, chunk_bytes: int = 1 << 20
) -> Iterator[NDArray[uint8]]: ...
