import numpy as np
from numpy.typing import NDArray

from siltstone_workers.sender import Outgoing

class Outbox:
    bytes: int
    credit: int
    def add(self, shard: int, sequence: int, stream: NDArray[np.uint8], records: int) -> None: ...
    def messages(self) -> list[Outgoing]: ...
