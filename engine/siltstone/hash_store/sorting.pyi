from collections.abc import Iterable, Iterator

from numpy import uint8, uint64
from numpy.typing import NDArray

from siltstone.index.types import Bytes, KeyTypes

def sort_entries(
    types: KeyTypes,
    secret: Bytes,
    streams: Iterable[Bytes],
    *,
    drop_deletes: bool = False,
    skip_keyless: bool = False,
) -> NDArray[uint8]: ...
def hashes_of(types: KeyTypes, secret: Bytes, stream: Bytes) -> NDArray[uint64]: ...
def cluster_entries(clusters: Bytes, last_used: int) -> NDArray[uint8]: ...

class Sorted:
    def __init__(self, types: KeyTypes, secret: Bytes, stream: NDArray[uint8]) -> None: ...
    @property
    def place(self) -> int | None: ...
    @property
    def left(self) -> int: ...
    def slice(self, entries: int, entry_bytes: int) -> Iterator[NDArray[uint8]]: ...
