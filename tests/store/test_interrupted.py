"""^C at the worst moment: between two steps that belong together."""

from __future__ import annotations

import itertools

import pytest
from interrupts import Interrupt
from store_faults import Faults, at_call
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, digest, rows

import siltstone
from siltstone.errors import PoisonedError
from siltstone.journal import sealed
from siltstone.shard import group, rolling
from siltstone.shard import shard as shard_module


def interrupt(*_arguments):
    raise KeyboardInterrupt


def interrupted_when_rolled(store, monkeypatch):
    """Let ^C come just after a superblock says that the active journal is closed."""
    volume = store._core.volume
    publish = volume.publish

    def publish_and_interrupt(change, **options):
        superblock = publish(change, **options)
        if any(extent.state == "closed" for extent in superblock.extents):
            monkeypatch.undo()
            raise KeyboardInterrupt
        return superblock

    monkeypatch.setattr(volume, "publish", publish_and_interrupt)


@pytest.fixture
def full(path, host):
    return a_full_store(path, host)


def a_full_store(path, host):
    """A store of one shard whose journal hardly takes anything, all of it durable; and how many records it has."""
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    shard = store._core.shards.group.shards[0]
    put = 0
    while shard.journal.room > 1000:
        store.put_many(*rows(range(put, put + 10)))
        put += 10
    store.flush()
    return store, put


def ended(store, ending):
    if ending == "close":
        store.close()
    else:
        store._core.abandon()


@pytest.mark.parametrize("ending", ["close", "death"])
def test_a_roll_that_was_cut_off_behind_the_superblock_is_complete(path, host, monkeypatch, full, ending):
    store, put = full
    store.put_many(*rows(range(put, put + 50)))
    interrupted_when_rolled(store, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        store.flush()
    store.put_many(*rows(range(put + 50, put + 100)))
    store.flush()
    ended(store, ending)
    with siltstone.open(path, plugins=host) as reopened:
        assert_holds(reopened, range(put + 100))
        assert len(reopened) == put + 100


@pytest.mark.parametrize("step", ["show_end", "show_tail"])
@pytest.mark.parametrize("ending", ["close", "death"])
def test_after_a_roll_that_was_cut_off_at_its_begin_all_that_was_put_before_is_there(
    path, host, monkeypatch, full, step, ending
):
    store, put = full
    store.put_many(*rows(range(put, put + 5)))
    log_store = store._core.shards.group.shards[0].store
    with monkeypatch.context() as patch:
        patch.setattr(log_store, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.put_many(*rows(range(put + 5, put + 50)))
    # The second is small enough for the old journal's last cluster, too.
    for call in (lambda: store.put_many(*rows([10**6])), lambda: store.delete_many(rows([1])[0])):
        with pytest.raises(PoisonedError, match="interrupted"):
            call()
    assert_holds(store, range(put + 5))
    store.flush()
    ended(store, ending)
    with siltstone.open(path, plugins=host) as reopened:
        assert_holds(reopened, range(put + 5))
        assert len(reopened) == put + 5


@pytest.mark.parametrize("deletes", [False, True])
def test_what_was_cut_off_between_journal_and_index_is_there_after_a_close(path, host, monkeypatch, deletes):
    """It is in the journal, and closed with it: a checkpoint of the index, which lacks it, must not cover it."""
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    for start in range(0, 6000, 50):
        store.put_many(*rows(range(start, start + 50)))
    store.flush()
    log_store = store._core.shards.group.shards[0].store
    with monkeypatch.context() as patch:
        patch.setattr(log_store, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            if deletes:
                store.delete(digest(1))
            else:
                # More than goes to a tail in compiled code, which nothing interrupts.
                store.put_many(*rows(range(10**6, 10**6 + 20)))
    store.close()
    for _opening in range(2):
        with siltstone.open(path, plugins=host) as reopened:
            assert (reopened.get(digest(1)) is None) == deletes
            assert (reopened.get(digest(10**6)) is None) == deletes
            assert len(reopened) == (5999 if deletes else 6020)


class WhereItFlushesAndRolls(Interrupt):
    """^C where a function is entered, the n-th of those that flush and roll: there the interpreter lets it in."""

    FILES = tuple(module.__file__ for module in (sealed, shard_module, group, rolling))

    def trace(self, frame, event, _argument):
        if event == "call" and frame.f_code.co_filename in self.FILES:
            self.passes()


def everywhere(open_full, act):
    """A full store for each place where `act` is interrupted."""
    for at in itertools.count(1):
        store, put = open_full()
        if not WhereItFlushesAndRolls(at).while_(lambda store=store, put=put: act(store, put)):
            assert at > 20
            return
        yield store, put


@pytest.fixture
def open_full(path, host):
    """Opens stores of one shard, one after the other, whose journal hardly takes anything."""

    def open_full():
        path.unlink(missing_ok=True)
        return a_full_store(path, host)

    return open_full


def test_a_flush_behind_a_roll_that_is_cut_off_anywhere_can_be_repeated(path, host, open_full):
    def turned():
        store, put = open_full()
        store.put_many(*rows(range(put, put + 5)))
        store.put_many(*rows(range(put + 5, put + 50)))
        assert store._core.shards.group.shards[0].turned
        return store, put

    for store, put in everywhere(turned, lambda store, _put: store.flush()):
        store.flush()
        store.put_many(*rows(range(put + 50, put + 60)))
        store.flush()
        store._core.abandon()
        with siltstone.open(path, plugins=host) as reopened:
            assert_holds(reopened, range(put + 60))


def test_a_put_that_rolls_is_cut_off_anywhere(path, host, open_full):
    def put_more(store, put):
        store.put_many(*rows(range(put + 5, put + 50)))

    def partly_flushed():
        store, put = open_full()
        store.put_many(*rows(range(put, put + 5)))
        return store, put

    whole = broken = 0
    for store, put in everywhere(partly_flushed, put_more):
        found = store.get_many(rows(range(put + 5, put + 50))[0])[0]
        assert len(set(found.tolist())) == 1, "a batch is all or nothing"
        there = put + (50 if found.all() else 5)
        store.flush()
        try:
            store.put_many(*rows(range(there, there + 10)))
            store.flush()
            there += 10
            whole += 1
        except PoisonedError:
            broken += 1
        store._core.abandon()
        with siltstone.open(path, plugins=host) as reopened:
            assert_holds(reopened, range(there))
    # Only where two steps belong together.
    assert broken <= 10 < whole


def test_a_close_that_is_cut_off_while_it_waits_gives_the_volume_up(path, monkeypatch):
    store = siltstone.open(path, shards=1)
    store.put_many(*rows(range(100)))
    store.flush()
    core = store._core  # kept, so that nothing is given up merely because nobody has it any more
    keeper = core.shards._keeper
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.close()
    keeper.join()
    store.close()
    with siltstone.open(path) as reopened:
        assert_holds(reopened, range(100))
    del core


@pytest.mark.parametrize("transfer", ["write", "flush"])
def test_a_close_that_is_cut_off_in_a_transfer_gives_the_volume_up(path, transfer):
    faults = Faults()
    store = siltstone.open(f"faulty:{path}", shards=1, plugins=faults.host())
    store.put_many(*rows(range(100)))
    store.flush()
    store.put_many(*rows(range(100, 110)))
    setattr(faults, transfer, at_call(1, interrupt))
    with pytest.raises(KeyboardInterrupt):
        store.close()
    store.close()
    with siltstone.open(path) as reopened:
        assert not reopened.info().clean
        assert_holds(reopened, range(100))


@pytest.mark.parametrize("ending", ["close", "death"])
def test_a_second_interrupt_while_a_flush_is_given_up_costs_the_next_one_nothing(
    path, host, monkeypatch, ending
):
    create_settled(Medium(str(path)), host, shards=3)
    store = open_settled(Medium(str(path)), host)
    store.put_many(*rows(range(100)))
    with monkeypatch.context() as patch:
        patch.setattr(store._core.volume, "flush", interrupt)
        patch.setattr(shard_module.Shard, "cancel_flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.flush()
    store.put_many(*rows(range(100, 200)))
    store.flush()
    ended(store, ending)
    with siltstone.open(path, plugins=host) as reopened:
        assert_holds(reopened, range(200))
