"""A worker process: does what its state machine says, with the shards that it owns."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from siltstone.errors import PluginError, SiltstoneError
from siltstone.index.types import KeyTypes
from siltstone.log_store.memory import IndexSize
from siltstone.plugin.host import PluginHost
from siltstone.plugin.types import BackendOptions
from siltstone.shard.group import ShardGroup
from siltstone.shard.merging import OnFull
from siltstone.shard.opening import IndexPlace, OpenOptions, Recovered, recover_shards, serve_shards
from siltstone.threads import Wakeup, start_thread
from siltstone.volume.backend import Handover
from siltstone_workers.errors import error_to_wire
from siltstone_workers.frames import pack_value
from siltstone_workers.instructions import (
    Append,
    Delete,
    End,
    Exit,
    Figures,
    Flush,
    Instruction,
    MakeSpace,
    Recover,
    Serve,
    Tidy,
)
from siltstone_workers.kinds import Kind
from siltstone_workers.machine import WorkerMachine
from siltstone_workers.memory import WorkerMemory
from siltstone_workers.messages import (
    Failures,
    ends_to_wire,
    failures_to_wire,
    figures_to_wire,
    recoveries_to_wire,
)
from siltstone_workers.worker_volume import WorkerVolume

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from siltstone.shard.replaying import ReplayProgress
    from siltstone_workers.calls import Calls
    from siltstone_workers.config import WorkerConfig
    from siltstone_workers.inbox import Inbox
    from siltstone_workers.sender import Sender

#: seconds between looks at what is due
_TICK_SECONDS: Final = 0.25
#: seconds of silence after which the core is told what was dealt with although it does not wait for it
_REPORT_SECONDS: Final = 0.02
#: seconds after which a worker that is sent nothing looks whether anything is wrong with the pipe
_IDLE_SECONDS: Final = 3600.0
#: entries without a key are sent on in pieces of this size [bytes]
_ENTRIES_BYTES: Final = 128 * 1024
#: as a plain number: to look a member of Kind up costs more than to send it
_REPLY: Final = int(Kind.REPLY)
_NO_NEWS: Final[tuple[int, list[Any]]] = (0, [])


class Worker:
    """The shell around a :class:`siltstone_workers.machine.WorkerMachine`: performs, answers, reports."""

    def __init__(
        self, config: WorkerConfig, inbox: Inbox, calls: Calls, events: Sender, answers: Sender, window: int
    ) -> None:
        self._config = config
        self._inbox = inbox
        self._calls = calls
        self._events = events
        self._answers = answers
        self._machine = WorkerMachine(frozenset(config.shards), window)
        #: how many appends that nobody waited for have failed, and why the last one did: every flush tells, since an
        #: answer may reach nobody
        self._failures = Failures()
        self._memory = WorkerMemory(
            config.memory, config.mirrors, [IndexSize(*size) for size in config.sizes]
        )
        plugins = load_plugins(config)
        kind = plugins.backend(config.scheme)
        if kind.attach is None:
            raise PluginError(
                f"backend {config.scheme!r} cannot be attached to in a worker; the core's can",
                plugin=config.scheme,
            )
        backend = kind.attach(
            config.rest,
            BackendOptions(force=frozenset(config.force), extra=dict(config.extra)),
            Handover(tuple(config.descriptors), dict(config.facts)),
        )
        self._volume = WorkerVolume(backend, calls)
        self._recovered: Recovered | None = None
        self._options: OpenOptions = self._opening(frozenset())
        self._group: ShardGroup | None = None
        self._wakeup = Wakeup()
        self._reports = 0
        self._tidying: deque[Tidy | MakeSpace] = deque()

    def run(self) -> None:
        """Serve until the core says that it is enough; ChannelClosedError where the core is gone."""
        while True:
            patience = _REPORT_SECONDS if self._machine.has_news else _IDLE_SECONDS
            message = self._inbox.next_request(patience)
            if message is None:
                self._report()
                continue
            for instruction in self._machine.receive(message):
                if isinstance(instruction, Exit):
                    return
                self._perform(instruction)

    # ---- instructions

    def _perform(self, instruction: Instruction) -> None:
        # In the order of how often they come: to look one up in a table would cost as much.
        if isinstance(instruction, Append):
            self._append(instruction)
        elif isinstance(instruction, Flush):
            self._flush(instruction.request)
        elif isinstance(instruction, Delete):
            self._delete(instruction)
        else:
            self._perform_seldom(instruction)

    def _perform_seldom(self, instruction: Instruction) -> None:
        match instruction:
            case Recover(request, clean, superblock):
                self._volume.take_superblock(superblock)
                self._attempt(request, lambda: self._recover(clean))
            case Serve(request, consumed):
                self._attempt(request, lambda: self._serve(consumed))
            case Tidy() | MakeSpace():
                # Not here: it takes long, and what is put meanwhile must not wait for it.
                self._tidying.append(instruction)
                self._wakeup.tell()
            case Figures(request):
                self._attempt(request, lambda: pack_value(figures_to_wire(self._shards().figures())))
            case End(request):
                self._attempt(request, lambda: pack_value(ends_to_wire(self._shards().end(), self._failures)))

    def _append(self, instruction: Append) -> None:
        error: SiltstoneError | None = None
        try:
            stream = np.frombuffer(instruction.entries, np.uint8)
            self._shards().append({instruction.shard: (stream, instruction.records)})
        except SiltstoneError as refused:
            error = refused.to_keep()
        self._machine.dealt_with(instruction)
        if instruction.request:
            self._answer(instruction.request, error=error)
        elif error is not None:
            self._failures = Failures(self._failures.number + 1, error)
            self._report()
            self._events.send([Kind.FAILED, instruction.shard])
        if self._machine.must_report:
            self._report()

    def _delete(self, instruction: Delete) -> None:
        keys = np.frombuffer(instruction.keys, np.uint8).reshape(-1, instruction.key_size)
        error: SiltstoneError | None = None
        found: Buffer | None = None
        try:
            found = self._shards().delete(instruction.shard, instruction.kind, keys).astype(np.uint8).data
        except SiltstoneError as refused:
            error = refused.to_keep()
        self._machine.dealt_with(instruction)
        self._answer(instruction.request, error=error, bulk=found)
        if self._machine.must_report:
            self._report()

    def _flush(self, request: int) -> None:
        error: SiltstoneError | None = None
        try:
            self._shards().flush()
        except SiltstoneError as refused:
            error = refused.to_keep()
        # Beside an error nobody would read it.
        bulk = None
        if error is None and self._failures.number:
            bulk = pack_value(failures_to_wire(self._failures))
        # Without news: to gather them would keep who asked waiting, and the next report has them.
        self._reply(request, error, bulk, _NO_NEWS)

    def _attempt(self, request: int, action: Any) -> None:
        try:
            bulk = action()
        except SiltstoneError as error:
            self._answer(request, error=error.to_keep())
        else:
            self._answer(request, bulk=bulk)

    def _shards(self) -> ShardGroup:
        assert self._group is not None
        return self._group

    # ---- opening

    def _opening(self, consumed: frozenset[int]) -> OpenOptions:
        config = self._config
        places = {
            shard: IndexPlace(
                self._memory.sizes[place],
                self._memory.map_index(place, writable=True),
                self._memory.mirrors_of(place),
            )
            for place, shard in enumerate(config.shards)
        }
        return OpenOptions(
            types=KeyTypes({kind: (key[0], key[1]) for kind, key in config.keys.items()}, config.known),
            key_entry_bytes=config.key_entry_bytes,
            index_memory=config.index_memory,
            unreadable_is_torn=config.unreadable_is_torn,
            on_full=OnFull(config.drops_oldest, config.hash_stores_max),
            threads=config.threads,
            progress=self._replayed,
            others=lambda shard: _Forwarder(self._calls, shard, consumed) if consumed else None,
            place=places.__getitem__,
        )

    def _recover(self, clean: bool) -> bytes:
        recovered = recover_shards(self._volume, self._config.shards, self._options, clean=clean)
        self._recovered = recovered
        return pack_value(recoveries_to_wire(recovered.recoveries))

    def _serve(self, consumed: frozenset[int]) -> None:
        assert self._recovered is not None
        recovered, self._recovered = self._recovered, None
        self._options = self._opening(consumed)
        shards = serve_shards(self._volume, recovered, self._options)
        self._group = ShardGroup(self._volume, shards, self._wakeup.tell, self._options.on_full)
        start_thread(threading.Thread(target=self._keep_house, name="siltstone-housekeeper", daemon=True))
        self._events.send([Kind.PROGRESS, 0, *self._news(dict.fromkeys(self._config.shards, 0))])

    def _replayed(self, progress: ReplayProgress) -> None:
        self._events.send([Kind.REPLAYED, progress.bytes_done, progress.bytes_total, progress.records])

    # ---- answers and reports

    def _answer(
        self, request: int, *, error: SiltstoneError | None = None, bulk: Buffer | None = None
    ) -> None:
        """Answer, and tell with it what was dealt with before."""
        # Without credit: that must not lie in an answer that nobody reads yet while others wait for it.
        self._reply(request, error, bulk, self._news(self._machine.touched()))

    def _reply(
        self,
        request: int,
        error: SiltstoneError | None,
        bulk: Buffer | None,
        news: tuple[int, list[Any]],
    ) -> None:
        wire = None if error is None else error_to_wire(error)
        self._answers.send([_REPLY, request, wire, *news], bulk)

    def _report(self) -> None:
        if self._machine.has_news:
            credit, touched = self._machine.report()
            self._events.send([Kind.PROGRESS, credit, *self._news(touched)])

    def _news(self, touched: dict[int, int]) -> tuple[int, list[Any]]:
        """How far the shards are that were touched; see messages.py."""
        self._reports += 1
        found = []
        for number, sequence in touched.items():
            shard = self._shards().shards[number]
            found.append((number, sequence, shard.room, shard.store.room))
        return self._reports, found

    # ---- housekeeping

    def _keep_house(self) -> None:
        """Do what is due from time to time; the pipe's end is for whoever reads it."""
        try:
            while True:
                self._wakeup.wait(_TICK_SECONDS)
                while self._tidying:
                    self._tidy(self._tidying.popleft())
                self._shards().tick()
        except BaseException:  # noqa: BLE001 - it is the core that is gone, or a bug: no worker goes on without a keeper
            os._exit(1)

    def _tidy(self, wanted: Tidy | MakeSpace) -> None:
        error: SiltstoneError | None = None
        more = False
        try:
            upkeep = self._shards().upkeep
            if isinstance(wanted, Tidy):
                more = upkeep.tidy(incarnate=wanted.incarnate, begin=wanted.begin)
            else:
                more = upkeep.make_space(deletes=wanted.deletes, here=True)
        except SiltstoneError as refused:
            error = refused.to_keep()
        # Without news: what was dealt with is for the thread that deals with it to tell.
        self._reply(wanted.request, error, b"\1" if more else None, _NO_NEWS)


class _Forwarder:
    """Sends the entries of a replay that somebody consumes on to the core, where the consumers are."""

    def __init__(self, calls: Calls, shard: int, consumed: frozenset[int]) -> None:
        self._calls = calls
        self._shard = shard
        self._consumed = consumed

    def __call__(self, entries: list[tuple[int, bytes]]) -> None:
        packed = bytearray()
        for kind, payload in entries:
            if kind not in self._consumed:
                continue
            packed += bytes((len(payload) + 2, kind)) + payload
            if len(packed) >= _ENTRIES_BYTES:
                self._send(packed)
                packed = bytearray()
        if packed:
            self._send(packed)

    def _send(self, packed: bytearray) -> None:
        self._calls.send_counted([Kind.ENTRIES, self._shard], packed)


def load_plugins(config: WorkerConfig) -> PluginHost:
    """Load what may load; UnknownEntryTypeError, PluginLoadError or VersionError where the store needs more."""
    plugins = PluginHost.load(config.plugins_allow)
    for number, name, version, distribution in config.needed:
        plugins.require_entry_type(number, name, version, distribution)
    return plugins
