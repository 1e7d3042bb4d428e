"""Between the arrays of a batch call and rows of payloads: one array a field, checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.errors import EntryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from siltstone.plugin.types import EntryType


def payload_rows(entry_type: EntryType, columns: Sequence[ArrayLike]) -> NDArray[np.uint8]:
    """The payloads of n records as (n, size) uint8, from one array a field; a copy."""
    return packed_rows(entry_type, checked_columns(entry_type, columns))


def checked_columns(entry_type: EntryType, columns: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """One array for each field of n records, all of one length; those that fit already are not copied."""
    dtype = entry_type.dtype
    if dtype is None or dtype.names is None:
        raise EntryError(
            f"{entry_type.name}: its records vary in size; put them one by one", type=entry_type.name
        )
    if len(columns) != len(dtype.names):
        raise EntryError(
            f"{entry_type.name}: {len(columns)} arrays given, one each is needed for {', '.join(dtype.names)}",
            type=entry_type.name,
        )
    arrays = [
        _column(entry_type, name, dtype[name], column)
        for name, column in zip(dtype.names, columns, strict=True)
    ]
    count = len(arrays[0])
    if any(len(array) != count for array in arrays):
        lengths = ", ".join(f"{name} {len(array)}" for name, array in zip(dtype.names, arrays, strict=True))
        raise EntryError(f"{entry_type.name}: the arrays differ in length: {lengths}", type=entry_type.name)
    return arrays


def packed_rows(entry_type: EntryType, arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """The payloads of records whose fields have been checked, as (n, size) uint8; a copy."""
    dtype = entry_type.dtype
    assert dtype is not None and dtype.names is not None
    rows = np.empty(len(arrays[0]), dtype)
    for name, array in zip(dtype.names, arrays, strict=True):
        rows[name] = array
    return rows.view(np.uint8).reshape(len(rows), dtype.itemsize)


def key_rows(entry_type: EntryType, keys: ArrayLike) -> NDArray[np.uint8]:
    """Keys as a contiguous (n, size) uint8 array, checked."""
    if entry_type.key is None:
        raise EntryError(f"{entry_type.name}: the type has no key", type=entry_type.name)
    return _byte_rows(entry_type, "keys", entry_type.key[1], keys)


def one_key(key: Buffer) -> NDArray[np.uint8]:
    """One key as a (1, size) array; EntryError for what is no string of bytes."""
    try:
        view = memoryview(key)
    except TypeError as error:
        raise EntryError(f"key {key!r:.80}: must be bytes: {error}") from error
    if view.ndim != 1 or view.itemsize != 1:
        raise EntryError(f"key {key!r:.80}: must be bytes, not items of {view.itemsize}")
    if not view.contiguous:
        raise EntryError(f"key {key!r:.80}: must be bytes that lie together")
    return np.frombuffer(view, np.uint8)[None]


def column_names(entry_type: EntryType) -> list[str]:
    """The fields that lie outside the key, in order."""
    dtype = entry_type.dtype
    assert dtype is not None and dtype.fields is not None
    start, size = entry_type.key or (0, 0)
    return [name for name in dtype.names or () if not start <= dtype.fields[name][1] < start + size]


def to_columns(entry_type: EntryType, payloads: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """One native array for each field outside the key, from (n, size) uint8 payloads; byte strings as (n, k) uint8."""
    dtype = entry_type.dtype
    assert dtype is not None
    rows = payloads.view(dtype)[:, 0] if len(payloads) else np.empty(0, dtype)
    columns = []
    for name in column_names(entry_type):
        field = rows[name]
        if field.dtype.kind == "V":
            columns.append(
                np.ascontiguousarray(field).view(np.uint8).reshape(len(rows), field.dtype.itemsize)
            )
        else:
            columns.append(field.astype(field.dtype.newbyteorder("=")))
    return columns


def _column(entry_type: EntryType, name: str, dtype: np.dtype[Any], column: ArrayLike) -> NDArray[Any]:
    if dtype.kind == "V":
        return _byte_rows(entry_type, name, dtype.itemsize, column).view(dtype)[:, 0]
    array = _as_array(entry_type, name, column)
    if array.ndim != 1:
        raise EntryError(
            f"{entry_type.name}: {name} has shape {array.shape}, must be (n,)", type=entry_type.name
        )
    if len(array) and array.dtype.kind not in ("ui" if dtype.kind in "ui" else "uif"):
        raise EntryError(
            f"{entry_type.name}: {name} has dtype {array.dtype}, must be a number", type=entry_type.name
        )
    if dtype.kind in "ui" and len(array) and array.dtype != dtype.newbyteorder("="):
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            bad = low if low < limits.min else high
            raise EntryError(
                f"{entry_type.name}: {name} holds {bad}, must be {limits.min} to {limits.max}",
                type=entry_type.name,
            )
    return array


def _byte_rows(entry_type: EntryType, name: str, size: int, rows: ArrayLike) -> NDArray[np.uint8]:
    array = _as_array(entry_type, name, rows)
    # NumPy pads byte strings of a list to the longest, which would make other keys of the shorter ones.
    exact = isinstance(rows, np.ndarray) or _sizes(rows) == {size}
    if exact and array.ndim == 1 and array.dtype.kind in "SV" and array.dtype.itemsize == size:
        array = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), size)
    if array.ndim != 2 or array.shape[1] != size or array.dtype != np.uint8:
        if array.size == 0 and array.ndim <= 2 and len(array) == 0:
            return np.empty((0, size), np.uint8)
        raise EntryError(
            f"{entry_type.name}: {name} has shape {array.shape} and dtype {array.dtype}, must be (n, {size}) uint8",
            type=entry_type.name,
        )
    return np.ascontiguousarray(array)


def _sizes(rows: ArrayLike) -> set[int]:
    """The lengths of what a sequence of byte strings holds."""
    return {len(row) for row in rows if isinstance(row, bytes)} if isinstance(rows, (list, tuple)) else set()


def _as_array(entry_type: EntryType, name: str, values: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise EntryError(f"{entry_type.name}: {name} is no array: {error}", type=entry_type.name) from error
