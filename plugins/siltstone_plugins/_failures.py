"""System errors and broken rules of a backend, said in Siltstone's errors."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from siltstone.errors import (
    DiskFullError,
    LockedError,
    MediumError,
    NotFoundError,
    ReadOnlyError,
    SiltstoneError,
)

if TYPE_CHECKING:
    from siltstone_plugins._holders import Holder

#: no space, no quota, or a limit on the size of files
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def failed(
    url: str, operation: str, offset: int, length: int, error: OSError, done: int = 0
) -> SiltstoneError:
    """Return the error for a transfer that the system refused.

    :param done: bytes of it that went through before
    """
    code = error.errno or 0
    name = errno.errorcode.get(code, str(code))
    message = f"{url}: {operation} of {length} bytes at offset {offset} failed: {os.strerror(code)} ({name})"
    if done:
        message += f" after {done} bytes"
    facts = {"url": url, "operation": operation, "offset": offset, "length": length, "errno": code}
    # A flush without space has lost writes that had returned: it is never the harmless kind of full.
    if code in NO_SPACE and operation in ("write", "grow"):
        return DiskFullError(message, needed=length, written=done, **facts)
    return MediumError(message, **facts)


def ended_short(url: str, operation: str, offset: int, length: int, done: int, why: str) -> MediumError:
    """Return the error for a transfer that stopped early though the system reported no error."""
    return MediumError(
        f"{url}: {operation} of {length} bytes at offset {offset} ended after {done} bytes: {why}",
        url=url,
        operation=operation,
        offset=offset,
        length=length,
        errno=0,
        done=done,
    )


def not_opened(url: str, error: OSError | ValueError) -> SiltstoneError:
    """Return the error for a target that the system would not open."""
    if isinstance(error, ValueError):
        return NotFoundError(f"{url!r} is no path: {error}", url=url)
    code = error.errno or 0
    reason = os.strerror(code)
    if code in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"{url}: there is no such file or device ({reason})", url=url)
    if code == errno.EROFS:
        return ReadOnlyError(f"{url} cannot be opened for writing: {reason}", url=url, reason=reason)
    return MediumError(
        f"{url} cannot be opened: {reason} ({errno.errorcode.get(code, code)})",
        url=url,
        operation="open",
        offset=0,
        length=0,
        errno=code,
    )


def check_range(url: str, operation: str, offset: int, length: int, size: int, alignment: int) -> None:
    """Raise MediumError unless the range lies inside `size` bytes on multiples of `alignment`."""
    rule = None
    if offset < 0 or length < 0:
        rule = "neither may be negative"
    elif offset + length > size:
        rule = f"that is beyond its {size} bytes"
    elif offset % alignment or length % alignment:
        rule = f"both must be multiples of {alignment}"
    if rule is not None:
        raise MediumError(
            f"{url}: {operation} of {length} bytes at offset {offset}: {rule}",
            url=url,
            operation=operation,
            offset=offset,
            length=length,
            errno=errno.EINVAL,
        )


def in_use(url: str, holder: Holder) -> LockedError:
    """Return the error for a medium that somebody else has."""
    return LockedError(
        f"{url} is in use by {holder.name}", url=url, holder=holder.name, is_ending=holder.is_ending
    )


def refuse_writing(url: str, operation: str) -> ReadOnlyError:
    """Return the error for an operation on a medium that was opened for reading."""
    reason = "opened for reading only"
    return ReadOnlyError(f"{url}: {operation} refused: it was {reason}", url=url, reason=reason)
