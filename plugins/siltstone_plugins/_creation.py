"""A file that gets its name only when it is whole, so that a creation that dies leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from typing import Final

from siltstone.errors import AlreadyExistsError, MediumError, SiltstoneError
from siltstone.volume.descriptors import above_standard
from siltstone_plugins._failures import not_opened
from siltstone_plugins._posix import FLAGS

_MODE: Final = 0o666
_RENAME_NOREPLACE: Final = 1
# What an unnamed temporary file gets where the file system, or an old kernel, has none.
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_libc = ctypes.CDLL(None, use_errno=True)


class Creation:
    """A new file beside its future name, open and empty.

    :param url: names it in errors
    :param path: absolute, without symlinks, of nothing that exists

    `descriptor` is open for reading and writing; whoever asked for the creation owns it.
    """

    def __init__(self, url: str, path: str) -> None:
        self._url = url
        folder, self._name = os.path.split(path)
        self._temporary: str | None = None
        try:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | FLAGS)
        except (OSError, ValueError) as error:
            raise not_opened(url, error) from error
        try:
            self.descriptor = self._open_unnamed(folder)
        except OSError as error:
            os.close(self._folder)
            raise not_opened(url, error) from error

    def _open_unnamed(self, folder: str) -> int:
        try:
            descriptor = above_standard(os.open(folder, os.O_RDWR | os.O_TMPFILE | FLAGS, _MODE))
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        else:
            # Without /proc there is no way to name it later.
            if os.path.lexists(f"/proc/self/fd/{descriptor}"):
                return descriptor
            os.close(descriptor)
        # The name is cut so that the temporary one is no longer than names may be.
        self._temporary = f".{self._name[:180]}.{secrets.token_hex(8)}.new"
        descriptor = os.open(
            self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, _MODE, dir_fd=self._folder
        )
        return above_standard(descriptor)

    def publish(self) -> None:
        """Flush the file, give it its name, flush the folder. Raises AlreadyExistsError for a taken name."""
        operation = "flush"
        try:
            os.fsync(self.descriptor)
            operation = "publish"
            self._link()
            self._temporary = None
            os.fsync(self.descriptor)
            self._flush_folder()
        except FileExistsError as error:
            raise AlreadyExistsError(
                f"{self._url} was made by somebody else in the meantime; it was not touched", url=self._url
            ) from error
        except OSError as error:
            raise self._failed(operation, error) from error
        finally:
            self.abandon()

    def _link(self) -> None:
        if self._temporary is None:
            # Naming a folder for the source makes this a linkat that follows the link to the file itself.
            os.link(
                f"/proc/self/fd/{self.descriptor}",
                self._name,
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
                follow_symlinks=True,
            )
            return
        try:
            os.link(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._rename(self._temporary)
        else:
            os.unlink(self._temporary, dir_fd=self._folder)

    def _rename(self, temporary: str) -> None:
        names = os.fsencode(temporary), os.fsencode(self._name)
        if _libc.renameat2(self._folder, names[0], self._folder, names[1], _RENAME_NOREPLACE) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def _flush_folder(self) -> None:
        try:
            os.fsync(self._folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that flushes no directory
                raise

    def abandon(self) -> None:
        """Remove what has no name of its own yet, and let go of the folder. Can be repeated."""
        folder, self._folder = self._folder, -1
        if folder < 0:
            return
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=folder)
        os.close(folder)

    def _failed(self, operation: str, error: OSError) -> SiltstoneError:
        code = error.errno or 0
        return MediumError(
            f"{self._url}: {operation} failed: {os.strerror(code)} ({errno.errorcode.get(code, code)})",
            url=self._url,
            operation=operation,
            offset=0,
            length=0,
            errno=code,
        )
