"""Shard host ``worker_processes``: the shards in processes of their own, and this process their core."""

from __future__ import annotations

import atexit
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.errors import (
    ClosedError,
    OutcomeUnknownError,
    SiltstoneError,
    StateError,
)
from siltstone.plugin.hosting import Hosting, ShardHost
from siltstone.shard.batches import FITS_BYTES, check_batch
from siltstone.shard.changes import CleanClose
from siltstone.shard.group_commit import GroupCommit
from siltstone.shard.replaying import ReplayProgress
from siltstone_workers.consuming import Consuming
from siltstone_workers.frames import unpack_value
from siltstone_workers.gathering import gathered
from siltstone_workers.keeper import Keeper, State
from siltstone_workers.kinds import Kind
from siltstone_workers.lookups import Lookups
from siltstone_workers.messages import Failures, ends_from_wire, failures_from_wire, figures_from_wire
from siltstone_workers.place import WorkerPlace
from siltstone_workers.publisher import Publisher
from siltstone_workers.sharing import Sharing, describe
from siltstone_workers.upkeep import result_with_space, tidy
from siltstone_workers.usage import worker_info

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from siltstone.journal.recovery import JournalRecovery
    from siltstone.lookup.reader import Reader
    from siltstone.plugin.hosting import WorkerInfo
    from siltstone.shard.changes import JournalEnd
    from siltstone.shard.figures import ShardFigures
    from siltstone_workers.answers import Answer
    from siltstone_workers.memory import WorkerMemory
    from siltstone_workers.process import WorkerProcess


class ProcessHost(ShardHost):
    """See :class:`siltstone.plugin.hosting.ShardHost`. Shard n is worker n modulo their number's.

    What is put goes to its worker and is acknowledged at once, where it surely fits: until the worker has it,
    lookups find it here. A flush asks every worker that was sent something since its last.
    """

    def __init__(self, hosting: Hosting) -> None:
        self.volume = hosting.volume
        self.deadline = float(hosting.worker.deadline)
        self.recoveries: tuple[JournalRecovery, ...] = ()
        self._url = hosting.volume.backend.url
        self._shards = hosting.volume.superblock.shards
        self._progress = hosting.opening.progress
        self.consuming = Consuming(hosting.opening.others, self.deadline)
        # Taken by itself, never through the condition: that takes it in Python, where an interrupt leaves it held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._found: dict[Keeper, Sequence[JournalRecovery]] = {}
        self._replays: dict[Keeper, tuple[int, int, int]] = {}
        self._opening_error: SiltstoneError | None = None
        self._opened = False
        self._losses = 0
        self._loss: SiltstoneError | None = None
        self._commits = GroupCommit(self._flush)
        handover = hosting.volume.backend.hand_over()
        if handover is None:
            raise StateError(
                f"{self._url}: this volume cannot be opened by worker processes; open with workers=0",
                what=self._url,
                state="not shared",
            )
        self._lookups = Lookups(
            self._shards,
            hosting.opening.types,
            hosting.volume.superblock.uuid,
            self._keeper,
            self.deadline,
        )
        self._keepers = [
            Keeper(number, WorkerPlace(hosting, number, hosting.workers, handover), self)
            for number in range(hosting.workers)
        ]
        self._sharing: Sharing | None = None
        self.publisher = Publisher(hosting.volume)
        atexit.register(self._leave)
        try:
            self._open()
            self._sharing = Sharing(hosting.volume.superblock.uuid, self._describe)
        except BaseException:
            self._end(lambda keeper: keeper.kill())
            raise

    def _open(self) -> None:
        for keeper in self._keepers:
            keeper.start()
        with self._lock:
            while self._opening_error is None and not self._opened:
                self._changed.wait(self.consuming.patience)
                self.consuming.check()
            if self._opening_error is not None:
                raise self._opening_error.to_keep()
        self.recoveries = tuple(
            sorted((found for each in self._found.values() for found in each), key=lambda found: found.shard)
        )

    # ---- what keepers tell

    def has_recovered(self, keeper: Keeper, found: Sequence[JournalRecovery]) -> None:
        """Hold a worker until all have recovered: only then does any make way for new writes."""
        with self._lock:
            if self._opened:
                return
            self._found[keeper] = found
            self._changed.notify_all()
            while len(self._found) < len(self._keepers) and self._opening_error is None:
                self._changed.wait()
            if self._opening_error is not None:
                raise ClosedError("another worker could not recover its shards", what="store")

    def serves(self, keeper: Keeper) -> None:
        """Let readers look into the indexes of a worker, and then everybody ask it."""
        views = keeper.place.views()
        with self._lock:
            self._lookups.show(views)
            self._opened = self._opened or all(
                each is keeper or each.state is State.SERVING for each in self._keepers
            )
            self._renew_reader()
            # Last: who sees that it serves must not find it away, nor put what the reader does not see yet.
            keeper.state = State.SERVING
            self._changed.notify_all()

    def is_away(self, keeper: Keeper, error: SiltstoneError, state: State) -> None:
        """Keep readers out of the indexes of a worker that ended, and then let everybody see that it is away."""
        with self._lock:
            self._lookups.hide(keeper.shards)
            if not self._opened and self._opening_error is None:
                self._opening_error = error.to_keep()
            self._renew_reader()
            keeper.state = state
            self._changed.notify_all()

    def _describe(self) -> tuple[dict[str, Any], list[WorkerMemory]]:
        with self._lock:
            return describe(self._keepers, self._lookups.is_shown, self.volume.backend.identity())

    def _renew_reader(self) -> None:
        if self._opened:
            if self._sharing is not None:
                self._sharing.changed()
            ledgers = (ledger for keeper in self._keepers for ledger in keeper.ledgers.values())
            self._lookups.renew({ledger.shard: ledger.pending for ledger in ledgers})

    def lost(self, error: SiltstoneError) -> None:
        """Remember that something put may be lost, for those who flush next."""
        with self._lock:
            self._losses += 1
            self._loss = error.to_keep()

    def mourn(self, process: WorkerProcess) -> None:
        """Count what a process that ended may have lost; once, whether its keeper or a flush noticed first."""
        lost = process.has_lost
        with self._lock:
            if lost and not process.is_mourned:
                self.lost(process.unknown())
                # Behind it: an interrupt in between counts it twice, not never.
                process.is_mourned = True

    def replayed(self, keeper: Keeper, size: int, total: int, records: int) -> None:
        """Add up how far the replays are, for whoever asked."""
        if self._progress is None or self._opened:
            return
        with self._lock:
            self._replays[keeper] = size, total, records
            sums = [sum(each) for each in zip(*self._replays.values(), strict=True)]
            self._progress(ReplayProgress(*sums))

    # ---- reading

    @property
    def reader(self) -> Reader:
        """Looks up keys, in what is on its way to a worker and in its index."""
        return self._lookups.reader

    def _keeper(self, shard: int) -> Keeper:
        return self._keepers[shard % len(self._keepers)]

    def _serving(self, shard: int) -> WorkerProcess:
        return self._keeper(shard).serving(shard)

    # ---- writing

    def append(self, streams: Mapping[int, tuple[NDArray[np.uint8], int]]) -> None:
        self.volume.check_process()
        for stream, _records in streams.values():
            if len(stream) > FITS_BYTES:
                check_batch(stream)
        waiting: list[tuple[WorkerProcess, Answer, Callable[[], Answer | None]]] = []
        errors: list[SiltstoneError] = []
        try:
            for process, batches in gathered(streams, self._serving):
                for batch, answer in zip(batches, process.requests.append(batches), strict=True):
                    if answer is not None:
                        waiting.append((process, answer, partial(process.requests.append_one, batch)))
        finally:
            for process, answer, again in waiting:
                try:
                    result_with_space(process, answer, again, self._keepers, self.volume, Kind.APPEND)
                except SiltstoneError as error:
                    errors.append(error)
        if errors:
            raise errors.pop(0)

    def try_append(self, shard: int, stream: NDArray[np.uint8], records: int) -> bool:
        self.volume.check_process()
        requests = self._keepers[shard % len(self._keepers)].serving(shard).requests
        return requests.try_append(requests.ledgers[shard], stream, records)

    @property
    def waits_for_others(self) -> bool:
        return True

    def delete(self, shard: int, kind: int, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        self.volume.check_process()
        process = self._serving(shard)
        ask = partial(process.requests.delete, shard, kind, keys)
        found = result_with_space(process, ask(), ask, self._keepers, self.volume, Kind.DELETE)
        flags = np.frombuffer(b"" if found is None else found, np.uint8)
        if len(flags) != len(keys) or (flags > 1).any():
            process.kill(
                f"it answered a deletion of {len(keys)} keys with {len(flags)} bytes that are not that"
            )
            raise process.unknown()
        return flags.view(np.bool_)

    @property
    def losses(self) -> int:
        return self._losses

    def loss(self) -> SiltstoneError:
        assert self._loss is not None
        return self._loss.to_keep()

    def tidy(self, *, incarnate: bool) -> None:
        self.volume.check_process()
        tidy([keeper.serving(keeper.shards[0]) for keeper in self._keepers], incarnate=incarnate)

    def flush(self) -> None:
        self.volume.check_process()
        for keeper in self._keepers:
            process = keeper.process
            if process is not None and process.requests.sent > process.flushed:
                self._commits.ask()
                return

    def _flush(self) -> None:
        asked: list[tuple[WorkerProcess, int, Answer]] = []
        errors: list[SiltstoneError] = []
        for keeper in self._keepers:
            process = keeper.process
            if process is None:
                continue  # what the last one had not flushed counts as lost by now, and is told as that
            sent = process.requests.sent
            if sent > process.flushed:
                try:
                    asked.append((process, sent, process.requests.ask(Kind.FLUSH)))
                except SiltstoneError as error:
                    self._not_flushed(process, error, errors)
        for process, sent, answer in asked:
            try:
                failures = process.result(answer, Kind.FLUSH)
                if failures is not None:
                    self._have_failed(process, failures_from_wire(unpack_value(failures)))
                # Last: after an interrupt before it the next flush asks again.
                process.flushed = max(process.flushed, sent)
            except SiltstoneError as error:
                self._not_flushed(process, error, errors)
        if errors:
            # Out of the list, which this frame holds: the error's traceback holds this frame.
            raise errors.pop(0)

    def _have_failed(self, process: WorkerProcess, failures: Failures) -> None:
        """Count as a loss what a worker tells of appends that nobody waited for, where that is news."""
        if failures.number > process.failures and failures.last is not None:
            self.lost(failures.last)
            # Behind it: an interrupt in between counts it twice, not never.
            process.failures = failures.number

    def _not_flushed(
        self, process: WorkerProcess, error: SiltstoneError, errors: list[SiltstoneError]
    ) -> None:
        """A loss where the process has ended, so that each caller is told of it once; else an error."""
        if isinstance(error, OutcomeUnknownError) and process.cause:
            self.mourn(process)
        else:
            errors.append(error)

    # ---- facts

    def records(self) -> int:
        return sum(each.records for each in self.figures())

    def figures(self) -> tuple[ShardFigures, ...]:
        """Each shard in figures, as its worker has it once all that was put before is there."""
        found: list[ShardFigures] = []
        asked = []
        for keeper in self._keepers:
            process = keeper.serving(keeper.shards[0])
            asked.append((process, process.requests.ask(Kind.FIGURES)))
        for process, answer in asked:
            found += figures_from_wire(unpack_value(process.result(answer, Kind.FIGURES)))
        return tuple(sorted(found, key=lambda each: each.shard))

    def workers(self) -> tuple[WorkerInfo, ...]:
        return tuple(map(worker_info, self._keepers))

    # ---- life

    def close(self) -> None:
        """Let every worker flush and end, then mark the volume as cleanly closed."""
        ends: list[JournalEnd] = []
        errors: list[SiltstoneError] = []
        asked: list[tuple[WorkerProcess, Answer]] = []
        try:
            for keeper in self._keepers:
                try:
                    process = self._settled(keeper)
                    asked.append((process, process.requests.ask(Kind.END)))
                except SiltstoneError as error:
                    errors.append(error)
            for process, answer in asked:
                try:
                    found, failures = ends_from_wire(unpack_value(process.result(answer, Kind.END)))
                    ends += found
                    self._have_failed(process, failures)
                    process.flushed = process.requests.sent
                except SiltstoneError as error:
                    errors.append(error)
            if not errors:
                self.volume.publish(CleanClose(tuple(ends)))
        finally:
            self._end(lambda keeper: keeper.close(self.deadline))
        if errors:
            raise errors.pop(0)

    def _settled(self, keeper: Keeper) -> WorkerProcess:
        """The process of a worker, once it serves again; its error where it does not within the deadline."""
        with self._lock:
            self._changed.wait_for(
                lambda: keeper.state in (State.SERVING, State.STOPPED), timeout=self.deadline
            )
        return keeper.serving(keeper.shards[0])

    def abandon(self) -> None:
        self._end(lambda keeper: keeper.kill())

    def _leave(self) -> None:
        """End the workers of a store that the program did not close; a forked child has none to end.

        Else the lock, which workers share, would be kept by any child that was forked meanwhile and lives on.
        """
        if not self.volume.is_forked:
            self.abandon()

    def _end(self, end: Callable[[Keeper], bool]) -> None:
        """End all workers; the volume's lock is given up only when the kernel has let all of them go."""
        atexit.unregister(self._leave)
        with self._lock:
            sharing, self._sharing = self._sharing, None
        if sharing is not None:
            sharing.close()
        with self._lock:
            self._opening_error = self._opening_error or ClosedError("the store is closed", what="store")
            self._changed.notify_all()
        gone, cut_off = True, None
        for keeper in self._keepers:
            try:
                gone = end(keeper) and gone
            except BaseException as error:  # noqa: BLE001 - raised once all have ended: nobody else would end them
                cut_off = error
                gone = keeper.kill() and gone
        self.publisher.close()
        for keeper in self._keepers:
            keeper.place.release()
        self._lookups.close()
        if gone:
            self.volume.backend.reclaim()
        if cut_off is not None:
            raise cut_off
