"""Keeps one worker running: starts it, listens to it, notices its end, starts it again."""

from __future__ import annotations

import logging
import threading
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from siltstone.errors import ClosedError, ShardAwayError, ShardStoppedError, SiltstoneError, WorkerError
from siltstone.format.superblock_slot import encode_slot
from siltstone.threads import Wakeup, start_thread
from siltstone_workers.checks import expect
from siltstone_workers.errors import ProtocolError, error_from_wire
from siltstone_workers.frames import unpack_value
from siltstone_workers.kinds import Kind
from siltstone_workers.messages import PROTOCOL_VERSION, recoveries_from_wire
from siltstone_workers.pipes import ChannelClosedError
from siltstone_workers.process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from siltstone.journal.recovery import JournalRecovery
    from siltstone.volume.volume import Volume
    from siltstone_workers.consuming import Consuming
    from siltstone_workers.ledger import Ledger
    from siltstone_workers.pipes import Message
    from siltstone_workers.place import WorkerPlace
    from siltstone_workers.publisher import Publisher

_log = logging.getLogger(__name__)
#: ends in a row, with nothing answered between them, after which a worker is not started again
DEATHS_MAX: Final = 3
#: pauses before it is started again, one after each end in a row [seconds]
_PAUSES: Final = (0.0, 0.2, 1.0)
#: how long the kernel may take to end a process that was killed [seconds]
_END_SECONDS: Final = 5.0
#: how often a thread that does not end is looked after [seconds]
_LOOK_SECONDS: Final = 0.1
#: how long a worker's program may take to start, however short the deadline of requests is [seconds]
_START_SECONDS: Final = 30.0
#: what the credit of one message can never be [bytes]
_CREDIT_MAX: Final = 1 << 40


class State(Enum):
    """What a worker is, as `WorkerInfo.state` has it."""

    STARTING = "starting"
    SERVING = "serving"
    AWAY = "away"
    STOPPED = "stopped"


class Household(Protocol):
    """What a keeper needs of the host that it works for."""

    volume: Volume
    publisher: Publisher
    consuming: Consuming
    deadline: float

    def has_recovered(self, keeper: Keeper, found: Sequence[JournalRecovery]) -> None:
        """A worker has recovered its shards; returns when all have, at the opening of the store."""

    def serves(self, keeper: Keeper) -> None:
        """A worker has opened its shards: once readers look into them its state is SERVING."""

    def is_away(self, keeper: Keeper, error: SiltstoneError, state: State) -> None:
        """A worker has ended, for this reason; once no reader looks into what it left, it is in this state."""

    def mourn(self, process: WorkerProcess) -> None:
        """A process has ended: what it had not flushed may be lost."""

    def replayed(self, keeper: Keeper, size: int, total: int, records: int) -> None:
        """How far the replay of a worker is."""


class Keeper:
    """One worker's place: the process that has it now, and the thread that keeps it.

    The kernel ends a worker with the thread that started it, so this thread lives as long as the worker may.

    :param number: which worker
    :param place: what its processes are given: shards, shared memory, configuration
    """

    def __init__(self, number: int, place: WorkerPlace, household: Household) -> None:
        self.number = number
        self.place = place
        self.shards: tuple[int, ...] = place.shards
        self.state = State.STARTING
        self.restarts = 0
        self.last_error = ""
        self.process: WorkerProcess | None = None
        self.ledgers: dict[int, Ledger] = {}
        #: whether the kernel has let every process of this place go
        self.is_gone = True
        self._household = household
        self._is_closing = False
        self._pause = Wakeup()
        self._thread = threading.Thread(target=self._keep, name=f"siltstone-worker-{number}", daemon=True)

    def start(self) -> None:
        """Begin; the household hears of the rest."""
        start_thread(self._thread)

    def serving(self, shard: int) -> WorkerProcess:
        """The process that serves a shard now; ShardAwayError or ShardStoppedError where none does."""
        process = self.process
        if self.state is State.SERVING and process is not None:
            return process
        raise self.away(shard)

    def away(self, shard: int) -> SiltstoneError:
        """Why a shard is not served now."""
        if self._is_closing:
            return ClosedError("the store is closed", what="store")
        if self.state is State.STOPPED:
            return ShardStoppedError(
                f"shard {shard}: worker {self.number} ended {DEATHS_MAX} times in a row, the last time because"
                f" {self.last_error}; it is not started again: open the store anew",
                shard=shard,
                worker=self.number,
                cause=self.last_error,
            )
        return ShardAwayError(
            f"shard {shard}: worker {self.number} has ended ({self.last_error}) and is being started again; nothing"
            " was done",
            shard=shard,
            worker=self.number,
        )

    def close(self, patience: float) -> bool:
        """End the worker, and the thread; False where the process could not be ended within `patience` seconds."""
        self._is_closing = True
        self._pause.tell()
        process = self.process
        if process is not None:
            process.tell(Kind.EXIT)
            if not process.wait(patience):
                process.kill("it did not end when it was told to")
        return self._has_ended(process)

    def kill(self) -> bool:
        """End the worker at once, and the thread; False where the process could not be ended."""
        self._is_closing = True
        self._pause.tell()
        process = self.process
        if process is not None:
            process.kill("the store was abandoned")
        return self._has_ended(process)

    def _has_ended(self, process: WorkerProcess | None) -> bool:
        """Whether the process is gone, once the thread has ended; one that a consumer holds is left behind."""
        while self._thread.is_alive():
            if self._household.consuming.holds(self._thread.ident):
                return process is None or process.wait(_END_SECONDS)
            self._thread.join(_LOOK_SECONDS)
        return self.is_gone

    # ---- the thread

    def _keep(self) -> None:
        deaths, first = 0, True
        while not self._is_closing:
            error = self._live(first)
            proved = self.process is not None and self.process.has_proved_itself
            self._bury(error)
            if not self.is_gone or (first and self.state is State.STARTING):
                # Nothing is served yet, and the opening fails; or the old process may still write.
                self._household.is_away(self, error, State.STOPPED)
                return
            deaths = 1 if proved else deaths + 1
            self._household.is_away(self, error, State.STOPPED if deaths >= DEATHS_MAX else State.AWAY)
            if self.state is State.STOPPED:
                _log.error("%s", self.away(self.shards[0]))
                return
            first = False
            self._pause.wait(_PAUSES[deaths - 1])
            self.restarts += 1

    def _live(self, first: bool) -> SiltstoneError:
        """Start a process and listen to it until its end; why it ended."""
        try:
            self._open(first)
            while True:
                message = self._process().listen(None)
                assert message is not None
                self._take(message)
        except ChannelClosedError:
            return WorkerError("it ended", worker=self.number)
        except SiltstoneError as error:
            return error
        except OSError as error:
            # Out of descriptors, memory or processes: no bug, and nothing that a traceback would explain.
            cause = error.strerror or str(error)
            return WorkerError(f"worker {self.number}: {cause}", worker=self.number, cause=cause)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker ends with it, and is told of
            _log.exception("worker %d", self.number)
            return WorkerError(f"{error!r}", worker=self.number, cause=repr(error))

    def _process(self) -> WorkerProcess:
        assert self.process is not None
        return self.process

    def _bury(self, error: SiltstoneError) -> None:
        """Make sure that the process is gone before anything else may write where it wrote."""
        process = self.process
        if process is None:
            self.last_error = str(error)
            return
        # From here on nobody is sent to it, and nothing that it asked for is done any more. Who flushes still
        # meets it, and its error, until the loss is counted: in between no flush may return as if all were well.
        self.state = State.AWAY if self.state is State.SERVING else self.state
        self._household.publisher.bar(process)
        ended_itself = type(error) is WorkerError and error.fields.get("cause") is None
        cause = None if ended_itself else str(error)
        self.is_gone = process.end(cause, _END_SECONDS)
        self.last_error = process.cause
        if not self._is_closing:
            _log.warning("worker %d (process %d): %s", self.number, process.pid, self.last_error)
        self._household.mourn(process)
        self.process = None
        for ledger in self.ledgers.values():
            ledger.pending.clear()
        process.release()

    # ---- opening

    def _open(self, first: bool) -> None:
        household = self._household
        volume = household.volume
        clean = self.place.clean and first
        if not first:
            # The barrier first: what the dead process left in the caches must not vanish after it was read.
            volume.flush()
            volume.begin_epoch(self.shards)
            self.place.forsake()
        self.ledgers = self.place.prepare()
        place = self.place
        process = WorkerProcess(self.number, household.deadline, place.inherited(), self.ledgers, place.path)
        self.process = process
        if self._is_closing:
            # Whoever closes may have looked for a process to end before this one was there.
            raise ClosedError("the store is closed", what="store")
        process.tell(Kind.HELLO, PROTOCOL_VERSION, bulk=self.place.configuration().to_bulk())
        self._greeted(self._next(process))
        found = recoveries_from_wire(
            unpack_value(self._call(Kind.RECOVER, clean, bulk=encode_slot(volume.superblock)))
        )
        household.has_recovered(self, found)
        consumed = sorted(self.place.consumed) if first else []
        self._call(Kind.SERVE, consumed)
        process.has_proved_itself = False
        if self._is_closing:
            raise ClosedError("the store is closed", what="store")
        household.serves(self)

    def _next(self, process: WorkerProcess) -> Message:
        patience = max(process.deadline, _START_SECONDS)
        message = process.listen(patience)
        if message is None:
            raise WorkerError(
                f"worker {self.number} said nothing within {patience:g} s",
                worker=self.number,
                cause="silence",
            )
        return message

    def _greeted(self, message: Message) -> None:
        if message.fields[0] != Kind.READY:
            raise ProtocolError("a worker greets first", rule="order of messages", value=message.fields[0])
        version, _pid, error = expect(message.fields, int, int, (list, None))
        if error is not None:
            raise error_from_wire(error)
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"worker {self.number} speaks version {version} of the protocol, the core {PROTOCOL_VERSION}",
                rule="version",
                value=version,
            )

    def _call(self, kind: Kind, *items: object, bulk: Buffer | None = None) -> memoryview | None:
        """Ask for a step of the opening and deal with what comes until its answer is here.

        A worker that says nothing for as long as an answer may take is hung.
        """
        process = self._process()
        answer = process.requests.ask(kind, *items, bulk=bulk)
        while not answer.has_arrived:
            message = process.listen_for(answer, process.deadline)
            if message is not None:
                self._take(message)
        return process.result(answer, kind)

    # ---- messages

    def _take(self, message: Message) -> None:
        process = self._process()
        kind = message.fields[0]
        if kind == Kind.PROGRESS:
            credit, number, shards = expect(message.fields, int, int, list)
            process.requests.hear(number, shards)
            # More was never taken, and no whole number is too large to be sent.
            process.requests.credit.give(min(credit, _CREDIT_MAX))
        elif kind == Kind.FAILED:
            # The next flush brings the error; until then nothing more is sent that nobody waits for.
            (shard,) = expect(message.fields, int)
            self._ledger(shard).nothing_fits()
        elif kind == Kind.PUBLISH:
            expect(message.fields, int, bool, int)
            self._household.publisher.submit(process, self.shards, message)
        elif kind == Kind.ENTRIES:
            (shard,) = expect(message.fields, int)
            self._ledger(shard)
            if message.bulk is None:
                raise ProtocolError("ENTRIES without bulk", rule="bulk", value=None)
            self._household.consuming.take(shard, message.bulk)
            process.tell(Kind.CREDIT, len(message.bulk), waited_for=True)
        elif kind == Kind.READY:
            # Its last words: why it ends.
            _version, _pid, error = expect(message.fields, int, int, list)
            raise error_from_wire(error)
        elif kind == Kind.REPLAYED:
            size, total, records = expect(message.fields, int, int, int)
            self._household.replayed(self, size, total, records)
        else:
            raise ProtocolError(f"a core is not sent messages of kind {kind}", rule="kind", value=kind)

    def _ledger(self, shard: int) -> Ledger:
        found = self.ledgers.get(shard)
        if found is None:
            raise ProtocolError(f"shard {shard} is another worker's", rule="own shards", value=shard)
        return found
