from typing import Final

from numpy import bool_, uint8, uint64
from numpy.typing import NDArray

from siltstone.hash_store.extent import FilterShape

CELL_BYTES: Final[int]
HASH_BYTES: Final[int]

class FuseFilter:
    cells: NDArray[uint8]
    shape: FilterShape
    def __init__(self, hashes: NDArray[uint64]) -> None: ...
    @property
    def seed(self) -> int: ...
    def may_hold(self, hashes: NDArray[uint64]) -> NDArray[bool_]: ...
