"""Every error that Siltstone raises on purpose: one base, narrow leaves, each picklable with its fields.

A leaf states in its message what happened, to what, and where; the same facts are attributes, so that a
caller need not parse text. ``except siltstone.SiltstoneError`` catches all of them.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "AlreadyExistsError",
    "BatchTooLargeError",
    "ClosedError",
    "ConfigError",
    "DamageError",
    "DiskFullError",
    "EndOfJournalError",
    "EntryError",
    "ForeignVolumeError",
    "JournalFullError",
    "LockedError",
    "LogStoreFullError",
    "MediumError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PluginConflictError",
    "PluginError",
    "PluginLoadError",
    "PoisonedError",
    "ProtocolError",
    "ReadOnlyError",
    "RefusedDeviceError",
    "ShardAwayError",
    "ShardStoppedError",
    "SiltstoneError",
    "StateError",
    "UnknownEntryTypeError",
    "VersionError",
    "WorkerError",
]


def _restore(cls: type[SiltstoneError], message: str, fields: dict[str, Any]) -> SiltstoneError:
    return cls(message, **fields)


class SiltstoneError(Exception):
    """Base of every error here: a message for people, and its facts as attributes.

    :param message: the whole sentence
    :param fields: the facts in it, each kept as an attribute of that name
    """

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Only reached for what is not set: declares to type checkers that facts are attributes.
        raise AttributeError(f"{type(self).__name__} has no fact {name!r}; it has {sorted(self.__dict__)}")

    def to_keep(self) -> Self:
        """The same error without its traceback, for whoever keeps it: frames would keep maps and devices busy."""
        return type(self)(self.message, **self.fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.fields)


# ---- the medium and what is on it


class MediumError(SiltstoneError):
    """A read, write or flush of the medium failed (EIO, a short transfer).

    Facts: url, operation, offset, length, errno.
    """


class DiskFullError(SiltstoneError):
    """There is no space for this. Reads go on; it can be tried again once there is.

    Facts: url, needed.
    """


class DamageError(SiltstoneError):
    """Durable bytes are not what was written. Facts where known: journal, cluster, offset (bytes, on the volume)."""


class ForeignVolumeError(SiltstoneError):
    """What is there is no Siltstone volume, or not one that can be trusted; it was not written. Facts: url."""


class VersionError(SiltstoneError):
    """The volume has a format version that this release does not know. Facts: url, version, known."""


class LockedError(SiltstoneError):
    """Somebody else holds the volume.

    Facts: url, holder (text naming process and command, or "unknown"), and where known is_ending (nobody has it
    who lives on).
    """


class RefusedDeviceError(SiltstoneError):
    """The device is mounted, held, partitioned, foreign or otherwise not ours to write. Facts: url, reason."""


class AlreadyExistsError(SiltstoneError):
    """The target of a format or create already holds something. Facts: url."""


class NotFoundError(SiltstoneError):
    """The target does not exist and was not to be created. Facts: url."""


# ---- journals and stores


class JournalFullError(SiltstoneError):
    """The journal has no room for this; nothing of it was written (the RFC's -EPERM). Facts: needed, room."""


class EndOfJournalError(SiltstoneError):
    """An offset is beyond the end of the journal (the RFC's -EFBIG). Facts: offset, end."""


class EntryError(SiltstoneError):
    """An entry is not valid: its size, its type or its fields. Facts where known: type, size, offset."""


class BatchTooLargeError(SiltstoneError):
    """The batch is larger than the largest journal that the store may make; nothing of it was written.

    Facts: size, limit.
    """


class LogStoreFullError(SiltstoneError):
    """The index has reached its memory budget, or its journals, or the parts of its hash stores, their number; nothing
    was written. Facts: limit.
    """


class PoisonedError(SiltstoneError):
    """A write or flush failed before: nothing more is acknowledged here. Facts: what, cause."""


class ReadOnlyError(SiltstoneError):
    """The store or volume is open for reading only. Facts: reason."""


class ClosedError(SiltstoneError):
    """The store, journal or backend is closed. Facts: what."""


class StateError(SiltstoneError):
    """The operation does not fit the state that the object is in. Facts: what, state."""


# ---- plugins and configuration


class PluginError(SiltstoneError):
    """Base of what goes wrong with plugins. Facts where known: distribution, plugin."""


class PluginConflictError(PluginError):
    """Two providers claim one id, name or scheme. Facts: what, providers (each "distribution version")."""


class PluginLoadError(PluginError):
    """A plugin that is needed could not be loaded. Facts: distribution, plugin, cause."""


class UnknownEntryTypeError(PluginError):
    """Nobody provides this entry type. Facts: type (id or name), and where known provider and offset."""


class ConfigError(SiltstoneError):
    """A configuration file or option is wrong. Facts: source, key."""


# ---- worker processes


class WorkerError(SiltstoneError):
    """Base of what goes wrong with worker processes. Facts where known: worker, pid, cause."""


class OutcomeUnknownError(WorkerError):
    """A worker ended, or did not answer in time: what was asked of it may have happened or not.

    Raised by the call that was under way, and by the next flush of each thread where something that was put
    and not flushed may be lost. Facts where known: worker, pid, cause.
    """


class ShardAwayError(WorkerError):
    """The worker of this shard has ended and is being started again; nothing was done. Facts: shard, worker."""


class ShardStoppedError(ShardAwayError):
    """The worker of this shard ended again and again; it is not started any more. Facts: shard, worker, cause."""


class ProtocolError(WorkerError):
    """What came through a pipe breaks a rule. Facts: rule, value."""
