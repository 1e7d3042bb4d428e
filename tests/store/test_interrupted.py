"""^C at the worst moment: between two steps that belong together."""

from __future__ import annotations

import pytest
from store_faults import Faults, at_call
from store_media import Medium, create_settled, open_settled
from store_records import assert_holds, rows

import siltstone
from siltstone.errors import PoisonedError


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
