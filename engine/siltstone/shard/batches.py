"""Batches of packed entries: deletions as one, and whether one fits a journal at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from siltstone.errors import BatchTooLargeError
from siltstone.format.constants import CLUSTER_SIZE, JOURNAL_SIZE_MAX, TYPE_DELETE
from siltstone.format.kernels import measure_stream
from siltstone.journal.sealed import log_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: a batch of so many bytes of entries fits the largest journal, however they lie
FITS_BYTES = JOURNAL_SIZE_MAX // 2


def delete_stream(kind: int, keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Packed DELETE entries for (n, size) keys of type `kind`."""
    count, size = keys.shape
    stream = np.empty((count, size + 3), np.uint8)
    stream[:, 0], stream[:, 1], stream[:, 2] = size + 3, TYPE_DELETE, kind
    stream[:, 3:] = keys
    return stream.ravel()


def check_batch(stream: NDArray[np.uint8]) -> None:
    """BatchTooLargeError where packed entries do not fit the largest journal that a store may make."""
    _entries, clusters = measure_stream(stream)
    if clusters > log_clusters(JOURNAL_SIZE_MAX):
        raise BatchTooLargeError(
            f"a batch of {len(stream)} bytes takes {clusters} clusters of one journal; the largest has"
            f" {log_clusters(JOURNAL_SIZE_MAX)}",
            size=len(stream),
            limit=log_clusters(JOURNAL_SIZE_MAX) * CLUSTER_SIZE,
        )
