from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray
from typing_extensions import Buffer

# Type checkers do not know before Python 3.12 that arrays are buffers.
Bytes: TypeAlias = Buffer | NDArray[Any]

class KeyTypes:
    def __init__(self, keys: Mapping[int, tuple[int, int]], known: Collection[int] = ()) -> None: ...
    def packed(self) -> bytes: ...
