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


@pytest.mark.parametrize("ending", ["close", "death"])
def test_after_a_roll_that_was_cut_off_nothing_is_acknowledged_that_is_lost(path, host, monkeypatch, ending):
    create_settled(Medium(str(path)), host, shards=1)
    store = open_settled(Medium(str(path)), host)
    store.put_many(*rows(range(1000)))
    store.flush()
    put = 1000
    interrupted_when_rolled(store, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        while True:
            store.put_many(*rows(range(put, put + 10)))
            put += 10
    # The batch that was cut off is small enough for the old journal's last cluster, too.
    for call in (lambda: store.put_many(*rows([10**6])), lambda: store.delete_many(rows([1])[0])):
        with pytest.raises(PoisonedError, match="interrupted"):
            call()
    assert_holds(store, range(put))
    if ending == "close":
        # It cannot vouch for all.
        with pytest.raises(PoisonedError, match="interrupted"):
            store.close()
    else:
        store._core.abandon()
    with siltstone.open(path, plugins=host) as reopened:
        assert_holds(reopened, range(put))
        assert len(reopened) == put


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
