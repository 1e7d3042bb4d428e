from collections.abc import Sequence
from typing import Any, Final

from numpy import uint8, uint64
from numpy.typing import NDArray

from siltstone.index.mapped import MappedIndex
from siltstone.index.types import Bytes, KeyTypes

NO_PLACE: Final[uint64]
ABSENT: Final[int]
PUT: Final[int]
DELETED: Final[int]

class LogIndex(MappedIndex):
    def __init__(
        self,
        memory: Bytes,
        types: KeyTypes,
        secret: Bytes,
        segments: int,
        window_bytes: int,
        shared: bool = False,
    ) -> None: ...
    def attach(
        self,
        journal: int,
        view: Bytes,
        offset: int = 0,
        extent: int = 0,
        generation: int = 0,
        volume: bytes | None = None,
    ) -> None: ...
    def list_older(self, older: Any, listing: Sequence[tuple[int, ...]]) -> None: ...
    def tally(self, journal: int) -> tuple[int, int, int, int]: ...
    def detach(self, journal: int) -> None: ...
    def publish_tail(self, journal: int, index: int, tail: Bytes, start: int) -> None: ...
    def publish_end(self, journal: int, index: int, slot: int | None) -> None: ...
    def apply(self, journal: int, stream: Bytes, positions: NDArray[uint64]) -> int: ...
    def remember(self, journal: int, stream: Bytes, positions: NDArray[uint64]) -> int: ...
    def apply_clusters(
        self, journal: int, clusters: Bytes, first_index: int, last_used: int, skipped: int = 0
    ) -> tuple[int, int, int | None]: ...
    def living(
        self, journal: int, clusters: Bytes, first_index: int, last_used: int, keep_deletes: bool
    ) -> tuple[NDArray[uint8], NDArray[uint64], int]: ...
    def move(
        self, journal: int, stream: Bytes, before: NDArray[uint64], positions: NDArray[uint64]
    ) -> int: ...
    def drop(self, stream: Bytes, before: NDArray[uint64]) -> int: ...
    def shrink(self) -> None: ...
    def states_of(self, kind: int, keys: NDArray[uint8]) -> NDArray[uint8]: ...
