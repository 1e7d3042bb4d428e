from collections.abc import Callable
from typing import Any

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
        older: Callable[[list[tuple[int, int, int, int]]], Any] | None = None,
        volume: bytes | None = None,
    ) -> None: ...
    def map_journal(self, number: int) -> bool: ...

class AwayIndex(MappedIndex):
    def __init__(self, types: KeyTypes, secret: Bytes) -> None: ...
