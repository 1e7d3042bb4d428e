from siltstone.index.types import KeyTypes

class MappedIndex:
    types: KeyTypes
    @property
    def records(self) -> int: ...
    @property
    def bytes(self) -> int: ...
