"""The entries of clusters one by one, for those who want what has no key."""

from __future__ import annotations

import numpy as np

from siltstone.format.constants import CLUSTER_SIZE
from siltstone.format.kernels import split_entries
from siltstone.format.seal import seals_of


def entries_of(clusters: memoryview, last_used: int, skipped: int = 0) -> list[tuple[int, bytes]]:
    """The entries of some verified clusters as (type, payload), in order.

    Of the first cluster the first `skipped` bytes do not count, of the last one only `last_used` do.
    """
    found: list[tuple[int, bytes]] = []
    seals = seals_of(clusters)
    starts = np.empty(CLUSTER_SIZE // 2, np.uint32)
    for number, seal in enumerate(seals):
        used = int(seal["used"])
        if number == len(seals) - 1:
            used = min(used, last_used)
        body = clusters[number * CLUSTER_SIZE :][:used]
        if number == 0 and skipped:
            body = body[skipped:]
        count = split_entries(body, starts)
        found.extend(
            (body[start + 1], bytes(body[start + 2 : start + body[start]]))
            for start in starts[:count].tolist()
        )
    return found
