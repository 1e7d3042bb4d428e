"""How the next journals take the writes: at once, and in the superblock a moment later.

There it takes one flush and one write for as many shards as are due, and whoever puts waits for neither. Nothing in the
next journal is durable before the superblock calls it active: a crash before that leaves the old one as it was flushed,
and an empty journal, whatever its clusters say.

Shards fill alike, so that several are due at a time; each for itself they would take one flush after the other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from siltstone.errors import DiskFullError, PoisonedError, SiltstoneError
from siltstone.format.kernels import measure_stream
from siltstone.format.superblock import ACTIVE, CLOSED
from siltstone.shard import space
from siltstone.shard.changes import Roll, Rolled
from siltstone.shard.locking import TOGETHER_MAX, holding
from siltstone.shard.spares import make_ready, make_spare, sizes_of_next, soon_want_spare

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from siltstone.format.superblock import Extent
    from siltstone.journal.sealed import SealedJournal
    from siltstone.shard.shard import Shard
    from siltstone.volume.shard_volume import ShardVolume

_log = logging.getLogger(__name__)
#: a journal is closed along with another's only where no more than one part in so many of it is left
_LEFT_PARTS: Final = 8


def roll(
    shard: Shard, stream: NDArray[np.uint8], *, reserve: bool = False, others: Sequence[Shard] = ()
) -> None:
    """Let the next journal take the writes, if `stream` really does not fit the active one.

    The caller holds the group's flush lock, and sees to it that :func:`complete` follows before long. Waits only for a
    next journal that is not ready, and for a roll before that is not complete.

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
    # First: what the superblock does not know yet does not count for what is to be kept, nor can it be cleaned.
    _complete_before(shard, others)
    try:
        make_spare(shard, clusters, reserve=reserve)
    except DiskFullError as error:
        if shard.journal is not None and shard.journal.given_up:
            close_active(shard)
        raise DiskFullError(
            f"shard {shard.number}: no space for its next journal: {error}",
            **{**error.fields, "shard": shard.number},
        ) from error
    along = [each for each in others if each is not shard and _is_nearly_full(each, len(stream))]
    _turn([shard, *along[: TOGETHER_MAX - 1]])


def freeze(shard: Shard, *, kept: bool = False) -> None:
    """As :func:`close_active`, but with a next journal, so that all can be incarnated while writes go on.

    DiskFullError where there is no space for that.

    :param kept: it may be of the shard's reserve, of which it takes no more than it must
    """
    shard.check()
    _complete_before(shard)
    if shard.journal is None or shard.journal.position == (0, 0):
        return
    make_spare(shard, kept=kept)
    close_active(shard)


def close_active(shard: Shard) -> None:
    """Close the active journal, where something is in it; the next one takes the writes only where it is ready.

    Else reads go on, and writes wait for space. The caller holds the group's flush lock. The superblock says so when it
    returns.
    """
    shard.check()
    _complete_before(shard)
    if shard.journal is None or shard.journal.position == (0, 0):
        return
    _turn([shard])
    complete([shard])


def _is_nearly_full(shard: Shard, size: int) -> bool:
    """Whether a batch of `size` bytes might not fit, little is left anyway, and a next journal that takes it waits."""
    journal, spare = shard.journal, shard.spare
    return (
        shard.broken is None
        and not shard.turned
        and journal is not None
        and journal.poison is None
        and not shard.last_room
        and spare is not None
        and spare.poison is None
        and spare.room >= size
        and journal.room < min(size, journal.extent.length // _LEFT_PARTS)
    )


def flush_held(shard: Shard) -> None:
    """Flush the active journal of a shard, whose lock the caller holds, and the group's for flushes."""
    journal = shard.journal
    if journal is None:
        return
    try:
        if journal.begin_flush():
            shard.volume.flush()
            journal.end_flush()
    except SiltstoneError as error:
        journal.fail(error)
        raise
    except BaseException:
        journal.cancel_flush()
        raise


def _turn(shards: Sequence[Shard]) -> None:
    """Let the spares of some shards take the writes, here, and nothing where one has none.

    What stops it for another than the first leaves that out.
    """
    in_order = sorted(shards, key=lambda shard: shard.number)
    holding([shard.lock for shard in in_order], lambda: _turn_held(shards))


def _turn_held(shards: Sequence[Shard]) -> None:
    for shard in shards:
        old = shard.journal
        try:
            if old is not None:
                # Its last cluster is read in its slot from here on. A flush that covers it comes with the superblock.
                old.begin_flush()
            _take_over(shard, old, shard.spare)
        except BaseException as error:
            if old is not None and not shard.turned:
                # It goes on as it was, and what was to be its last copy is one that nothing covers.
                old.cancel_flush()
            if shard is shards[0] or not isinstance(error, SiltstoneError):
                raise


def _take_over(shard: Shard, old: SealedJournal | None, fresh: SealedJournal | None) -> None:
    assert not shard.turned
    try:
        if old is not None:
            shard.store.show_end(old.extent, old.written_end)
        # In this order: what takes the writes by now must not be taken for what the superblock knows.
        shard.turned = True
        shard.closing, shard.journal = old, fresh
        if fresh is not None:
            shard.spare = None
            shard.store.show_tail(fresh, 0)
    except BaseException as error:
        shard.broken = shard.interrupted(error)
        raise


def _complete_before(shard: Shard, others: Sequence[Shard] = ()) -> None:
    """Complete the last roll of a shard, so that there can be another; PoisonedError where that never will be.

    Those of others go along.
    """
    if shard.turned:
        complete([shard, *(each for each in others if each is not shard)])
        shard.check_roll()


def complete(shards: Sequence[Shard]) -> None:
    """Flush what some shards have rolled from, and let the superblock say so; nothing where none has.

    The caller holds the group's flush lock; shards take entries meanwhile. A flush that fails poisons what it was to
    cover, and what came after that. Where the superblock could not be written the next call tries again.
    """
    turned = _turned(shards)
    if turned:
        _complete(turned, {})


def complete_onward(shards: Sequence[Shard], flush_lock: threading.Lock) -> None:
    """As :func:`complete`, and make the journals behind those ready that are wanted soon, where there is space, with no
    superblock write of their own.

    For whoever is not waited for, and does not hold the group's flush lock. Nothing that goes wrong with the second
    keeps the first from being done, nor is it told: there are other ways to a next journal, which tell.
    """
    with flush_lock:
        turned = _turned(shards)
        onward = sorted(soon_want_spare(turned), key=lambda shard: shard.number)
        locks = [shard.spare_lock for shard in onward]
        taken = holding(locks, lambda: _complete(turned, sizes_of_next(onward))) if turned else {}
    if taken:
        try:
            # Behind the lock: nobody who flushes waits for that.
            make_ready(taken)
        except SiltstoneError:
            _log.debug("next journals that were taken with a roll were given back", exc_info=True)


def _turned(shards: Sequence[Shard]) -> list[Shard]:
    """Those that have rolled, in order, and whose rolls can be completed."""
    turned = [shard for shard in shards if shard.turned and not shard.roll_has_failed]
    return sorted(turned, key=lambda shard: shard.number)


def _complete(turned: Sequence[Shard], wanted: Mapping[Shard, int]) -> dict[Shard, Extent]:
    """Complete what some shards have rolled from; the extents of the `wanted` sizes that were taken with that."""
    volume = turned[0].volume
    taken: dict[Shard, Extent] = {}
    try:
        _flush_closing(turned)
        rolled = tuple(_rolled(shard) for shard in turned if not _is_known(volume, shard))
        if rolled:
            taken = _publish(volume, rolled, wanted)
    except SiltstoneError:
        cause = volume.poisoned
        if cause is not None:
            # The medium may or may not say that they are closed: nothing may be acknowledged any more.
            for shard in turned:
                shard.roll_failed(cause)
        raise
    for shard in turned:
        with shard.lock:
            shard.closing = None
            shard.turned = False
    return taken


def _publish(
    volume: ShardVolume, rolled: tuple[Rolled, ...], wanted: Mapping[Shard, int]
) -> dict[Shard, Extent]:
    """Let the superblock say who rolled, and who takes a next journal: all of those or none."""
    if wanted:
        sizes = tuple((shard.number, size) for shard, size in wanted.items())
        try:
            superblock = volume.publish(Roll(rolled, sizes), optional=True)
        except SiltstoneError:
            # Of both it is the roll that somebody will wait for.
            if volume.poisoned is not None:
                raise
        else:
            return {shard: space.taken_by(superblock, shard.number) for shard in wanted}
    volume.publish(Roll(rolled))
    return {}


def _flush_closing(turned: Sequence[Shard]) -> None:
    waiting = [
        shard.closing for shard in turned if shard.closing is not None and not shard.closing.is_flushed
    ]
    if not waiting:
        return
    try:
        turned[0].volume.flush()
    except SiltstoneError as error:
        for shard in turned:
            shard.roll_failed(error)
        raise
    for journal in waiting:
        journal.end_flush()


def _rolled(shard: Shard) -> Rolled:
    old, fresh = shard.closing, shard.journal
    return Rolled(
        shard.number,
        None if old is None else old.extent.id,
        None if old is None else old.end,
        None if fresh is None else fresh.extent.id,
    )


def _is_known(volume: ShardVolume, shard: Shard) -> bool:
    """Whether the superblock has it already: an interrupt may have come right after that was written."""
    journal, state = (shard.closing, CLOSED) if shard.journal is None else (shard.journal, ACTIVE)
    assert journal is not None
    return any(
        extent.id == journal.extent.id
        and extent.generation == journal.extent.generation
        and extent.state == state
        for extent in volume.superblock.extents
    )
