from typing import Any

from siltstone.index.types import KeyTypes

class MappedIndex:
    types: KeyTypes
    older: Any
    @property
    def records(self) -> int: ...
    @property
    def tombstones(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def bytes(self) -> int: ...
