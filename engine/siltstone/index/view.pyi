from collections.abc import Callable

from siltstone.index.mapped import MappedIndex
from siltstone.index.types import Bytes, KeyTypes

class IndexView(MappedIndex):
    def __init__(
        self,
        memory: Bytes,
        types: KeyTypes,
        secret: Bytes,
        segments: int,
        window_bytes: int,
        map: Callable[[int, int, int], Bytes],  # noqa: A002
    ) -> None: ...
    def map_journal(self, number: int) -> bool: ...

class AwayIndex(MappedIndex):
    def __init__(self, types: KeyTypes, secret: Bytes) -> None: ...
