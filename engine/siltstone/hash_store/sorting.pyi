from collections.abc import Iterable

from numpy import uint8
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
def cluster_entries(clusters: Bytes, last_used: int) -> NDArray[uint8]: ...
