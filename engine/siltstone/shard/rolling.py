"""How the next journals take the writes: one flush and one superblock write, for as many shards as are due.

Shards fill alike, so that several are due at a time; each for itself they would wait for one flush after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from siltstone.errors import DiskFullError, PoisonedError, SiltstoneError
from siltstone.format.kernels import measure_stream
from siltstone.shard.changes import Roll, Rolled
from siltstone.shard.locking import TOGETHER_MAX, holding
from siltstone.shard.spares import make_spare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.journal.sealed import SealedJournal
    from siltstone.shard.shard import Shard

#: a journal is closed along with another's only where no more than one part in so many of it is left
_LEFT_PARTS: Final = 8


def roll(
    shard: Shard, stream: NDArray[np.uint8], *, reserve: bool = False, others: Sequence[Shard] = ()
) -> None:
    """Close the active journal and let the next one take the writes, if `stream` really does not fit.

    The caller holds the group's flush lock. Durable when it returns: all that was put into the old one.

    :param reserve: `stream` deletes, and may go to the shard's reserve where there is no other space
    :param others: those that hardly take such a batch either roll with it, where their next journals are ready
    """
    shard.check()
    _entries, clusters = measure_stream(stream)
    if shard.journal is not None and shard.journal.poison is not None:
        raise PoisonedError(
            f"shard {shard.number}: journal {shard.journal.extent.id} is poisoned ({shard.journal.poison})",
            what=f"shard {shard.number}",
            cause=str(shard.journal.poison),
        )
    if shard.fits(stream, deletes=reserve):
        return
    try:
        make_spare(shard, clusters, reserve=reserve)
    except DiskFullError as error:
        if shard.journal is not None and shard.journal.given_up:
            # With no successor: reads go on, writes wait for space.
            _roll([shard], alone=True)
        raise DiskFullError(
            f"shard {shard.number}: no space for its next journal: {error}",
            **{**error.fields, "shard": shard.number},
        ) from error
    along = [each for each in others if each is not shard and _is_nearly_full(each, len(stream))]
    _roll([shard, *along[: TOGETHER_MAX - 1]])


def freeze(shard: Shard, *, kept: bool = False) -> None:
    """Close the active journal, unless it is empty, so that it can be incarnated; the next one takes the writes.

    The caller holds the group's flush lock. DiskFullError where there is no space for the next one.

    :param kept: that may be of the shard's reserve, of which it takes no more than it must
    """
    shard.check()
    if shard.journal is None or shard.journal.position == (0, 0):
        return
    make_spare(shard, kept=kept)
    _roll([shard])


def _is_nearly_full(shard: Shard, size: int) -> bool:
    """Whether a batch of `size` bytes might not fit, little is left anyway, and a next journal that takes it waits."""
    journal, spare = shard.journal, shard.spare
    return (
        shard.broken is None
        and journal is not None
        and journal.poison is None
        and not shard.last_room
        and spare is not None
        and spare.poison is None
        and spare.room >= size
        and journal.room < min(size, journal.extent.length // _LEFT_PARTS)
    )


def flush_held(shards: Sequence[Shard]) -> list[Shard]:
    """Flush the active journals of some shards with one flush of the medium; those for which that went well.

    The caller holds their locks, and the group's for flushes. The first one's error is raised; whoever puts into
    another that cannot flush, or flushes it, is told. A flush of the medium that fails is for all of them.
    """
    begun: list[Shard] = []
    flushed: list[Shard] = []
    try:
        for each in shards:
            try:
                if each.journal is not None and each.journal.begin_flush():
                    begun.append(each)
                flushed.append(each)
            except SiltstoneError:
                if each is shards[0]:
                    raise
        if begun:
            shards[0].volume.flush()
        for journal in _journals(begun):
            journal.end_flush()
    except SiltstoneError as error:
        for journal in _journals(begun):
            journal.fail(error)
        raise
    except BaseException:
        for journal in _journals(begun):
            journal.cancel_flush()
        raise
    return flushed


def _journals(shards: Iterable[Shard]) -> list[SealedJournal]:
    return [shard.journal for shard in shards if shard.journal is not None]


def _roll(shards: Sequence[Shard], *, alone: bool = False) -> None:
    """Close the active journals of some shards, the first one's in any case, and let their spares take the writes.

    First in the superblock, then here.

    :param alone: let nothing take the writes
    """
    in_order = sorted(shards, key=lambda shard: shard.number)
    holding([shard.lock for shard in in_order], lambda: _roll_held(shards, alone=alone))


def _roll_held(shards: Sequence[Shard], *, alone: bool) -> None:
    waiting = flush_held(shards)
    rolled = tuple(_rolled(each, None if alone else each.spare) for each in waiting)
    published = False
    try:
        shards[0].volume.publish(Roll(rolled))
        published = True
        while waiting:
            _take_over(waiting[0], None if alone else waiting[0].spare)
            waiting.pop(0)
    except BaseException as error:
        for each in waiting:
            _was_stopped(each, error, published=published)
        raise


def _rolled(shard: Shard, fresh: SealedJournal | None) -> Rolled:
    old = shard.journal
    return Rolled(
        shard.number,
        None if old is None else old.extent.id,
        None if old is None else old.end,
        None if fresh is None else fresh.extent.id,
    )


def _take_over(shard: Shard, fresh: SealedJournal | None) -> None:
    """Let `fresh` take the writes here, as the superblock says."""
    old = shard.journal
    if old is not None:
        shard.store.show_end(old.extent, old.end)
    shard.journal = fresh
    if fresh is not None:
        shard.spare = None
        shard.store.show_tail(fresh, 0)


def _was_stopped(shard: Shard, error: BaseException, *, published: bool) -> None:
    """A roll was stopped before the shard had its fresh journal: nothing may be acknowledged that might be lost."""
    old, poisoned = shard.journal, shard.volume.poisoned
    if published or not isinstance(error, SiltstoneError):
        # Nothing may be put to the old journal once the superblock closes it, wherever this was stopped.
        shard.broken = shard.interrupted(error)
    elif old is not None and poisoned is not None:
        # The medium may or may not say that the old journal is closed: nothing may be acknowledged in it.
        old.fail(poisoned)
