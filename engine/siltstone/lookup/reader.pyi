from collections.abc import Callable, Sequence
from typing import Any

from numpy import bool_, uint8
from numpy.typing import NDArray

from siltstone.index.mapped import MappedIndex
from siltstone.index.pending import Pending
from siltstone.index.types import Bytes

class Reader:
    def __init__(
        self,
        indexes: Sequence[MappedIndex],
        pending: Sequence[Pending | None] | None = None,
        stuck: Callable[[int], object] | None = None,
    ) -> None: ...
    def get(self, kind: int, key: Bytes) -> Any: ...
    def get_many(
        self, kind: int, keys: NDArray[uint8], payload_size: int
    ) -> tuple[NDArray[bool_], NDArray[uint8]]: ...
