"""Opening, creating and reopening stores; many rows, many shards, little memory; the figures that a store gives."""

from __future__ import annotations

import numpy as np
import pytest
from store_records import assert_holds, assert_lacks, digest, hashes, info, rows

import siltstone
from siltstone.errors import AlreadyExistsError, ConfigError, LogStoreFullError, NotFoundError

SMALL = {"erase_block": 64 * 1024}
MIB = 1 << 20


# ---- large puts, shards, memory


@pytest.mark.parametrize("shards", [1, 2, 8, 64])
def test_any_number_of_shards_serves(path, shards):
    with siltstone.open(path, shards=shards, **SMALL) as store:
        store.put_many(*rows(range(20_000)))
        store.delete_many(hashes(range(0, 20_000, 5)))
        store.flush()
        held = {extent.shard for extent in store.info().extents if extent.used > 8192}
        assert held == set(range(shards)), "each shard has some"
        assert store.info().shards == shards
    # What is asked for later does not matter.
    with siltstone.open(path, shards=3) as store:
        assert store.info().shards == shards
        assert len(store) == 16_000
        assert_lacks(store, range(0, 20_000, 5))
        assert_holds(store, [number for number in range(20_000) if number % 5])


def test_a_million_rows_in_one_call(path):
    with siltstone.open(path) as store:
        journals = store.info().journals
        store.put_many(*rows(np.arange(1_000_000)))
        assert store.info().journals > journals, "the test means to roll journals"
        assert_holds(store, np.arange(1_000_000))
        store.flush()
        # Bytes a record, journals up to their end; and with all that is ready or kept.
        assert store.info().journal_bytes / 1_000_000 <= 51.2
        assert store.info().volume_bytes / 1_000_000 <= 85
    with siltstone.open(path) as store:
        assert len(store) == 1_000_000
        assert_holds(store, np.arange(1_000_000))
        assert_lacks(store, np.arange(1_000_000, 1_010_000))


@pytest.mark.parametrize("crash", [False, True])
def test_a_batch_that_the_index_could_never_hold_is_refused_and_nothing_is_lost(path, crash):
    store = siltstone.open(path, shards=1, index_memory=MIB, **SMALL)
    store.put_many(*rows(range(1000)))
    limit = store.info().index_records_max
    batch = store.batch()
    batch.put_many(*rows(range(1000, 1001 + limit)))
    with pytest.raises(LogStoreFullError) as refused:
        batch.__exit__(None, None, None)
    assert refused.value.limit == limit
    assert "index_memory" in str(refused.value)
    assert len(store) == 1000
    assert_holds(store, range(1000))
    assert_lacks(store, range(1000, 3000))
    # The same records in parts are no trouble, and neither is anything else.
    store.put_many(*rows(range(1000, 1001 + limit)))
    assert_holds(store, range(1001 + limit))
    store.delete_many(hashes(range(500)))
    store.flush()
    store._core.abandon() if crash else store.close()
    with siltstone.open(path, index_memory=MIB) as store:
        assert_lacks(store, range(500))
        assert_holds(store, range(500, 1001 + limit))


def test_a_store_larger_than_the_budget_opens_and_goes_on(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(np.arange(300_000)))
    with siltstone.open(path, index_memory=MIB) as store:
        assert len(store) == 300_000
        assert_holds(store, np.arange(300_000))
        store.put(info(300_001))
        assert_holds(store, [300_001])
        assert store.delete(digest(5))
        store.flush()
    with siltstone.open(path) as store:
        assert len(store) == 300_000
        store.put(info(5))
        assert_holds(store, np.arange(300_000))


# ---- opening


def test_a_store_is_made_only_where_asked_for(path):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(NotFoundError, match=r"store\.silt"):
            siltstone.open(path, **options)
        assert not path.exists()
    siltstone.create(path, shards=2, **SMALL)
    with siltstone.open(path, create=False) as store:
        assert store.info().shards == 2


def test_create_destroys_only_where_asked_for(path):
    siltstone.create(path, **SMALL)
    with siltstone.open(path) as store:
        store.put(info(1))
        uuid = store.info().uuid
    before = path.read_bytes()
    with pytest.raises(AlreadyExistsError, match=r"store\.silt"):
        siltstone.create(path)
    assert path.read_bytes() == before
    siltstone.create(path, overwrite=True, **SMALL)
    with siltstone.open(path) as store:
        assert store.get(digest(1)) is None
        assert store.info().uuid != uuid


@pytest.mark.parametrize(
    "options",
    [
        {"shards": 0},
        {"shards": -1},
        {"shards": 5000},
        {"index_memory": 100},
        {"missing_types": "ignore"},
        {"workers": -3},
        {"erase_block": 1000},
        {"erase_block": 32 * 1024},
        {"erase_block": 3 * 64 * 1024},
        {"backend_options": {"nonesuch": 1}},
    ],
    ids=str,
)
def test_a_wrong_option_is_named_and_nothing_is_made(path, options):
    with pytest.raises(ConfigError) as caught:
        siltstone.open(path, **options)
    name = next(iter(options))
    assert ("nonesuch" if name == "backend_options" else name) in str(caught.value)
    assert not path.exists()


def test_a_configuration_opens_a_store(path, tmp_path):
    config = tmp_path / "store.toml"
    config.write_text(f'[volume]\ntarget = "{path}"\nshards = 2\n\n[store]\nindex_memory = "8 MiB"\n')
    with siltstone.open(config) as store:
        store.put(info(1))
        assert store.info().shards == 2
    with siltstone.open(path, read_only=True) as store:
        assert_holds(store, [1])


# ---- facts


def test_info_gives_the_figures(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(1000)))
        store.flush()
        facts = store.info()
        assert (facts.records, facts.shards, facts.read_only, facts.clean) == (1000, 2, False, True)
        assert facts.url.endswith("store.silt")
        assert facts.volume_bytes == path.stat().st_size
        assert facts.journal_bytes == sum(extent.used for extent in facts.extents)
        # Each of two shards: the log clusters that its rows fill (81 a cluster), and the two slots.
        assert 12 * 4096 < facts.journal_bytes <= (1000 // 81 + 1 + 2 * 2) * 4096
        assert [known["name"] for known in facts.entry_types] == ["hash_info"]
        assert facts.index_bytes > 0
        offset = MIB
        for extent in facts.extents:
            assert extent.offset == offset
            offset += extent.length
    with siltstone.open(path) as store:
        again = store.info()
        assert (again.uuid, again.created, again.records) == (facts.uuid, facts.created, 1000)
        assert again.epoch > facts.epoch
        assert again.sequence > facts.sequence
        assert again.clean


def test_recovery_says_what_was_found(path):
    with siltstone.open(path, shards=1, **SMALL) as store:
        assert store.recovery == ()
        store.put_many(*rows(range(100)))
    store = siltstone.open(path)
    assert [found.reason for found in store.recovery] == [""]
    store.put_many(*rows(range(100, 200)))
    store.flush()
    store.put_many(*rows(range(200, 1000)))
    store._core.abandon()
    with siltstone.open(path) as store:
        (found,) = store.recovery
        assert found.shard == 0
        assert found.cut_entries < 800
        assert (found.cut_entries > 0) == (found.reason != "")
        assert found.durable >= (1, 0)
        assert store.info().recovery[0].cut_entries == found.cut_entries
        assert_holds(store, range(200))
        assert_lacks(store, range(200, 1000))


def test_progress_is_told_while_journals_are_replayed(path):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(50_000)))
    told = []
    with siltstone.open(path, progress=told.append):
        pass
    assert told[-1].records == 50_000
    assert [step.bytes_done for step in told] == sorted(step.bytes_done for step in told)
    assert told[-1].bytes_done <= told[-1].bytes_total


def test_stores_that_are_reopened_do_not_grow(path, full_battery):
    with siltstone.open(path, shards=2, **SMALL) as store:
        store.put_many(*rows(range(200)))
    sizes = set()
    for crash in [False, True] * (10 if full_battery else 4):
        store = siltstone.open(path)
        store.put(info(1))
        store.flush()
        store._core.abandon() if crash else store.close()
        sizes.add(path.stat().st_size)
        assert len(sizes) <= 2, "an opening or a crash takes space for good"
    with siltstone.open(path) as store:
        assert_holds(store, range(200))
