"""The front door: a store that is put to, asked and flushed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from siltstone.core.batch import Batch
from siltstone.core.columns import checked_columns, key_rows, one_key, packed_rows, to_columns
from siltstone.core.core import Core
from siltstone.core.info import StoreInfo, describe
from siltstone.errors import ClosedError, EntryError
from siltstone.format.constants import ENTRY_HEADER_SIZE
from siltstone.locks import uninterrupted

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from siltstone.core.options import StoreOptions
    from siltstone.errors import SiltstoneError
    from siltstone.journal.recovery import JournalRecovery
    from siltstone.plugin.hosting import ShardHost, WorkerInfo
    from siltstone.plugin.types import EntryType

#: rows of a put_many that go to each shard as one batch, on the mean
_ROWS_A_SHARD = 4096
_BYTES_AT_ONCE = 32 << 20


class Store:
    """A dedup log store: it answers "do we have this block, and where?" for a content hash.

    Made by :func:`siltstone.open`. Threads may share it. Puts and deletes are seen by every later get at
    once, and are durable when a :meth:`flush` that began after them returns.
    """

    def __init__(self, options: StoreOptions) -> None:
        self._close_lock = threading.Lock()
        self._told = threading.local()  # how many losses a thread has been told of, or had nothing to do with
        self._losses_told = 0
        core = Core(options)
        #: None once closed. A call under way keeps the core, and with it the mapped journals that it reads.
        self._core: Core | None = core
        self._url = core.volume.backend.url
        self._read_only = core.is_read_only
        self._read_only_reason = core.read_only_reason
        self._recoveries = core.shards.recoveries
        self._host = core.host
        self._default = core.default_type
        self._shards = core.volume.superblock.shards

    # ---- putting

    def put(self, record: Any) -> None:
        """Put one record of any registered entry type; the last one put under a key wins.

        Not durable yet. Records of types without a key are kept in order, for their consumers.
        """
        shards, shard, entry = self._entry(record)
        if not shards.try_append(shard, entry, 1):
            shards.append({shard: (entry, 1)})

    def try_put(self, record: Any) -> bool:
        """As :meth:`put`, where that need not wait for anybody; False, with nothing put, where it would."""
        shards, shard, entry = self._entry(record)
        return shards.try_append(shard, entry, 1)

    def _entry(self, record: Any) -> tuple[ShardHost, int, NDArray[np.uint8]]:
        core = self._open()
        entry_type = self._host.entry_type_of(record)
        payload = entry_type.to_payload(record)
        shards = self._writable(core)
        core.record_type(entry_type)
        shard, entry = core.router.entry(entry_type.id, payload, entry_type.key is not None)
        return shards, shard, entry

    def put_many(self, *columns: ArrayLike, entry_type: str | None = None) -> None:
        """Put n records, given as one array a field; the last of equal keys wins. Not durable yet.

        For `hash_info`: hashes (n, 32) uint8, physical_sects (n,) and first_logical_sects (n,) uint64. The
        arrays are not kept. Rows go to their shards in batches of about 4096, each there whole or not at all
        after a crash.
        """
        core = self._open()
        kind = self._type(entry_type)
        arrays = checked_columns(kind, columns)
        shards = self._writable(core)
        core.record_type(kind)
        # Packed piece by piece: however many rows there are, this takes no more memory than the pieces on their way.
        size = kind.payload_size or 0
        step = self._step(size)
        for start in range(0, len(arrays[0]), step):
            rows = packed_rows(kind, [array[start : start + step] for array in arrays])
            stream, counts = core.router.route(kind.id, rows)
            shards.append(split_by_shard(stream, counts, size + ENTRY_HEADER_SIZE))

    # ---- asking

    def get(self, key: Buffer, *, entry_type: str | None = None) -> Any:
        """The record last put under `key`, or None."""
        core = self._open()
        kind = self._type(entry_type)
        try:
            payload = core.reader.get(kind.id, key)
        except (TypeError, ValueError, BufferError) as error:
            raise EntryError(
                f"{kind.name}: key {key!r:.80}: must be bytes: {error}", type=kind.name
            ) from error
        return None if payload is None else kind.from_payload(payload)

    def get_many(self, keys: ArrayLike, *, entry_type: str | None = None) -> tuple[NDArray[Any], ...]:
        """Look up n keys at once: (found, one array for each field that is not the key).

        For `hash_info`: hashes (n, 32) uint8 give found (n,) bool, physical_sects (n,) uint64 and
        first_logical_sects (n,) uint64, zero where nothing is found. While others put, each answer was right at
        some moment of the call, not all at the same.
        """
        core = self._open()
        kind = self._type(entry_type)
        rows = key_rows(kind, keys)
        if kind.payload_size is None:
            raise EntryError(f"{kind.name}: its records vary in size; get them one by one", type=kind.name)
        found, payloads = core.reader.get_many(kind.id, rows, kind.payload_size)
        return (found, *to_columns(kind, payloads))

    # ---- deleting

    def delete(self, key: Buffer, *, entry_type: str | None = None) -> bool:
        """Delete what was put under `key`; whether there was anything. Not durable yet."""
        return bool(self.delete_many(one_key(key), entry_type=entry_type)[0])

    def delete_many(self, keys: ArrayLike, *, entry_type: str | None = None) -> NDArray[np.bool_]:
        """Delete what was put under n keys; for which there was anything, as (n,) bool. Not durable yet.

        Not one batch: where a DiskFullError ends it, some may have been deleted.
        """
        core = self._open()
        kind = self._type(entry_type)
        rows = key_rows(kind, keys)
        shards = self._writable(core)
        found = np.zeros(len(rows), bool)
        step = self._step(rows.shape[1])
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            owners = core.router.shards_of(kind.id, part)
            # Not np.unique, whose first call imports a module: an interrupt in an import can hang all later ones.
            for shard in np.flatnonzero(np.bincount(owners)).tolist():
                chosen = np.flatnonzero(owners == shard)
                found[start + chosen] = shards.delete(shard, kind.id, np.ascontiguousarray(part[chosen]))
        return found

    def batch(self) -> Batch:
        """A context whose puts and deletes become visible, and durable, all or none per shard.

        They are applied when the block ends without an error, and forgotten when it ends with one.
        BatchTooLargeError where what one shard would get does not fit a journal; nothing is applied then.
        """
        core = self._open()
        self._writable(core)
        return Batch(core, self._type(None))

    # ---- durability and life

    def flush(self) -> None:
        """Return once all that was put or deleted before this call is durable.

        Threads that flush at the same time share one flush of the medium, and its error. After one nothing that was
        not flushed before may be taken for durable. Where a worker process ended, and with it perhaps something
        that was put and not flushed, the next flush of each thread that had put something before raises
        OutcomeUnknownError once, and of all others the first.
        """
        shards = self._writable(self._open())
        shards.flush()
        self._tell(shards)

    def flush_only(self) -> None:
        """As :meth:`flush`, without a word of losses: for callers that count :attr:`losses` themselves."""
        self._open().writable().flush()

    def pack(self) -> None:
        """Free the space of what was overwritten or deleted, now; returns when it is done.

        It is done by itself where journals are more than half dead; this waits for it. Flushes what was put before.
        DiskFullError where what is kept of some journals finds no space.
        """
        self._writable(self._open()).tidy(incarnate=False)

    def incarnate(self) -> None:
        """Turn everything into hash stores, merged to one a shard, now; returns when it is done.

        That is everything that was put before this call; what others put meanwhile may be left. It is done by itself
        when the index reaches its budget; this waits for it, and takes memory to a byte and a quarter a record.
        Flushes what was put before. DiskFullError where there is no space beside the old for the new.
        """
        self._writable(self._open()).tidy(incarnate=True)

    @property
    def losses(self) -> int:
        """How often something that was put and not flushed may have been lost since the store was opened."""
        core = self._open()
        return 0 if core.is_read_only else core.writable().losses

    @property
    def losses_told(self) -> int:
        """How many of the :attr:`losses` somebody has been told of."""
        return self._losses_told

    def loss_since(self, told: int) -> SiltstoneError | None:
        """What was lost since a caller had been told of the first `told` losses, as an error of its own, or None."""
        return self._loss_since(self._open().writable(), told)

    def close(self) -> None:
        """Flush, mark the store as cleanly closed, and give up its volume. Closing twice is allowed.

        An interrupt meanwhile is raised when all of that is done.
        """
        core = uninterrupted(self._end)
        if core is not None and not core.is_read_only and not core.volume.is_forked:
            self._tell(core.writable())

    def _end(self) -> Core | None:
        """Close the core, whose caller then tells of losses; None where that was done before."""
        with self._close_lock:
            core, self._core = self._core, None
            if core is not None:
                core.close()
            return core

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- facts

    @property
    def read_only(self) -> bool:
        """Whether nothing can be put; the reason is in `read_only_reason`."""
        return self._read_only

    @property
    def waits_for_others(self) -> bool:
        """Whether deletes and batches wait for other processes, however small they are."""
        core = self._open()
        return not core.is_read_only and core.writable().waits_for_others

    @property
    def read_only_reason(self) -> str:
        """Why the store is open for reading only, or ""."""
        return self._read_only_reason

    @property
    def recovery(self) -> tuple[JournalRecovery, ...]:
        """What opening found in each journal that was active: where it ends, what was cut, and why."""
        return self._recoveries

    def workers(self) -> tuple[WorkerInfo, ...]:
        """What is known of each worker process, as it is now; none where there are none."""
        return self._open().shards.workers()

    def info(self) -> StoreInfo:
        """The store in figures, as it is now."""
        return describe(self._open())

    def __len__(self) -> int:
        """Keys in the store: exact until there are hash stores, then as docs/operating.md says."""
        return self._open().shards.records()

    def __repr__(self) -> str:
        state = "closed" if self._core is None else "read-only" if self.read_only else "open"
        return f"<Store {self._url} {state}>"

    # ---- inside

    def _open(self) -> Core:
        core = self._core
        if core is None:
            raise ClosedError(f"{self._url}: the store is closed", what="store")
        return core

    def _writable(self, core: Core) -> ShardHost:
        """The shards; from now on this thread is one of those who are told of losses."""
        shards = core.writable()
        if not hasattr(self._told, "losses"):
            # What nobody has been told of yet is told to whoever flushes first.
            self._told.losses = self._losses_told
        return shards

    def _tell(self, shards: ShardHost) -> None:
        """Raise what may have been lost since this thread was told last."""
        error = self._loss_since(shards, getattr(self._told, "losses", self._losses_told))
        if error is not None:
            self._told.losses = self._losses_told
            raise error

    def _loss_since(self, shards: ShardHost, told: int) -> SiltstoneError | None:
        losses = shards.losses
        if told >= losses:
            return None
        # Another thread may have been told of a later one meanwhile.
        self._losses_told = max(self._losses_told, losses)
        return shards.loss()

    def _step(self, size: int) -> int:
        """Rows of `size` bytes that are routed at once: few enough for one journal, should they all be one shard's."""
        fitting: int = _BYTES_AT_ONCE // (size + 3)
        return max(1, min(_ROWS_A_SHARD * self._shards, fitting))

    def _type(self, name: str | None) -> EntryType:
        return self._default if name is None else self._host.entry_type_named(name)


def split_by_shard(
    stream: NDArray[np.uint8], counts: NDArray[np.int64], entry_size: int
) -> dict[int, tuple[NDArray[np.uint8], int]]:
    """Cut what a router packed into one stream a shard, with the number of its entries."""
    streams = {}
    start = 0
    for shard, count in enumerate(counts.tolist()):
        if count:
            streams[shard] = stream[start : start + count * entry_size], count
            start += count * entry_size
    return streams
