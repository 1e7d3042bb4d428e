"""Where shards run: the contract between the core and whoever opens, writes and flushes the shards of a store.

The core knows no process. It hands a :class:`Hosting` to a provider that a plugin registered with the
``siltstone_shard_hosts`` hook, and gets a :class:`ShardHost`: the shards in this process, or in workers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from siltstone.errors import ConfigError, PluginError, SiltstoneError
from siltstone.shard.figures import ShardFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.index.types import KeyTypes
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.lookup.reader import Reader
    from siltstone.plugin.types import BackendOptions, BackendType
    from siltstone.shard.opening import OpenOptions
    from siltstone.volume.volume import Volume

__all__ = [
    "IN_PROCESS",
    "WORKER_PROCESSES",
    "Hosting",
    "Joining",
    "OpenShards",
    "ShardFigures",
    "ShardHost",
    "ShardHostType",
    "WorkerInfo",
    "WorkerOptions",
]

#: names of the providers that the option `workers` chooses: 0, and more
IN_PROCESS: Final = "in_process"
WORKER_PROCESSES: Final = "worker_processes"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DEADLINE_MAX: Final = 86_400.0
_NICENESS_MAX: Final = 19


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How worker processes are run.

    :param deadline: a request that a worker has not answered after this time ends as OutcomeUnknownError, and the
        worker is replaced [seconds]
    :param niceness: what is added to a worker's niceness, 0 to 19
    :param affinity: the processors that each worker may run on, in turn: worker i gets item i, counted round;
        None: all that this process may use
    :param wait: whether an opening waits for them, and says where one cannot be started. Else lookups in a store that
        was closed cleanly are answered at once, all else waits for the workers, and what is amiss with them is told to
        the first call that needs them
    """

    deadline: float = 30.0
    niceness: int = 0
    affinity: tuple[tuple[int, ...], ...] | None = None
    wait: bool = True

    def __post_init__(self) -> None:
        number = isinstance(self.deadline, int | float) and not isinstance(self.deadline, bool)
        _check(
            number and 0.1 <= self.deadline <= _DEADLINE_MAX,
            "deadline",
            self.deadline,
            f"must be 0.1 to {_DEADLINE_MAX:.0f} seconds",
        )
        _check(
            type(self.niceness) is int and 0 <= self.niceness <= _NICENESS_MAX,
            "niceness",
            self.niceness,
            f"must be 0 to {_NICENESS_MAX}",
        )
        _check(type(self.wait) is bool, "wait", self.wait, "must be True or False")
        if self.affinity is None:
            return
        rule = "must be lists of processor numbers, such as [[0], [1]]"
        _check(
            isinstance(self.affinity, list | tuple) and len(self.affinity) > 0,
            "affinity",
            self.affinity,
            rule,
        )
        for one in self.affinity:
            valid = (
                isinstance(one, list | tuple) and one and all(type(cpu) is int and cpu >= 0 for cpu in one)
            )
            _check(bool(valid), "affinity", self.affinity, rule)
        object.__setattr__(self, "affinity", tuple(map(tuple, self.affinity)))


def _check(condition: bool, key: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"workers.{key} {value!r:.80}: {rule}", source=key, key=f"workers.{key}")


@dataclass(frozen=True, slots=True)
class Hosting:
    """A store whose shards are to be opened for writing: locked, its epoch raised, nothing recovered yet.

    :param volume: the core's; all superblock writes go through it
    :param clean: what the superblock said before the epoch was raised
    :param opening: how shards are opened
    :param keys: entry types with a key: type id to (offset, size) in the payload [bytes]
    :param known: ids of the types that entries may have
    :param plugins_allow: the distributions whose plugins may load, as `PluginHost.load` takes them
    :param backend: of the volume, with the rest of the target and the options that it was opened with
    :param workers: worker processes
    :param worker: how they are run
    """

    volume: Volume
    clean: bool
    opening: OpenOptions
    keys: Mapping[int, tuple[int, int]]
    known: Collection[int]
    plugins_allow: Sequence[str] | None
    backend: BackendType
    rest: str
    backend_options: BackendOptions
    workers: int
    worker: WorkerOptions


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What is known of one worker process.

    :param number: which worker
    :param pid: of the process, or None where there is none now
    :param state: "starting", "serving", "away" (it ended and is started again), "stopped" (it is not started again)
    :param shards: the shards that it owns
    :param restarts: how often it was started again
    :param queued_bytes: records sent to it that it has not taken over yet [bytes]
    :param memory_bytes: resident memory [bytes], like what follows None where there is no process to ask
    :param cpu_seconds: processor time that it has used [seconds]
    :param read_bytes: read from media [bytes]
    :param written_bytes: written to media [bytes]
    :param threads: running in it
    :param last_error: why the last one ended, or ""
    """

    number: int
    pid: int | None
    state: str
    shards: tuple[int, ...]
    restarts: int = 0
    queued_bytes: int = 0
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    threads: int | None = None
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Joining:
    """A store that another process has open for writing, to be looked into.

    :param volume: for reading only, without the lock; its superblock may be older than the other process's
    :param types: which entry types have keys
    """

    volume: Volume
    types: KeyTypes


class OpenShards(ABC):
    """The shards of an open store, as far as they can be asked. Threads may share it."""

    #: what recovery found in each journal that was active when the store was opened
    recoveries: tuple[JournalRecovery, ...]

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """Looks up keys in all shards, without a lock."""

    @abstractmethod
    def records(self) -> int:
        """Keys in the store, all that was put before this call counted."""

    @abstractmethod
    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, in the order of their numbers."""

    def workers(self) -> tuple[WorkerInfo, ...]:
        """What is known of each worker process; none where there are none."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let go of the shards; those of a :class:`ShardHost` are flushed, and the volume is marked as closed
        cleanly. What failed is raised when all has ended."""

    @abstractmethod
    def abandon(self) -> None:
        """End without a flush or a mark, as if everything had died."""


class ShardHost(OpenShards):
    """The opened shards of a store, to be written too. What :meth:`append` returned from is found by its reader."""

    @property
    def losses(self) -> int:
        """How often something that was put and not flushed may have been lost while the store was open."""
        return 0

    def loss(self) -> SiltstoneError:
        """An error of its own that says what was lost last; only where there were :attr:`losses`."""
        raise NotImplementedError

    @property
    def waits_for_others(self) -> bool:
        """Whether deletes and batches wait for other processes, however small they are."""
        return False

    @abstractmethod
    def append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> None:
        """Append to each shard its batch: packed entries, and how many of them may bring a new key.

        The streams are not changed by the caller afterwards. All or none per shard; an error in one shard may
        leave others written. Not durable yet.
        """

    def try_append(self, shard: int, stream: NDArray[np.uint8], records: int) -> bool:
        """As :meth:`append` for one shard, where that need not wait for anybody; False, with nothing done, where it
        would.

        A host that does not say how always might: its appends are left to a thread that may wait.
        """
        return False

    @abstractmethod
    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Delete those of the (n, size) keys that one shard has, as one batch; which it had."""

    @abstractmethod
    def tidy(self, *, incarnate: bool) -> None:
        """Return once the space of what was overwritten or deleted is free again, as far as that pays.

        :param incarnate: turn full journals into hash stores too, however much room the index has
        """

    @abstractmethod
    def flush(self) -> None:
        """Return once all that was appended or deleted before this call is durable, but for :attr:`losses`."""


@dataclass(frozen=True, slots=True)
class ShardHostType:
    """A provider of shard hosts.

    :param name: unique; :data:`IN_PROCESS` and :data:`WORKER_PROCESSES` are what the option `workers` chooses
    :param open: opens the shards of a store
    :param join: looks into a store that a host of this kind has open in another process; returns None where none
        does. None: that cannot be done
    """

    name: str
    open: Callable[[Hosting], ShardHost] = field(compare=False)
    join: Callable[[Joining], OpenShards | None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PluginError(
                f"shard host {self.name!r}: name must match {_NAME.pattern}", plugin=str(self.name)
            )
        if not callable(self.open):
            raise PluginError(f"shard host {self.name!r}: open must be callable", plugin=self.name)
        if self.join is not None and not callable(self.join):
            raise PluginError(f"shard host {self.name!r}: join must be callable or None", plugin=self.name)
