"""Figures of a store that is written meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import siltstone

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from siltstone.core.info import StoreInfo

MIB = 1024 * 1024


def put(store: Any, start: int, count: int) -> None:
    hashes = np.random.default_rng(start).integers(0, 256, (count, 32), np.uint8)
    numbers = np.arange(start, start + count, dtype=np.uint64)
    store.put_many(hashes, numbers, numbers)


def used(info: StoreInfo) -> dict[int, int]:
    """The used bytes of each journal that has entries."""
    return {
        extent.id: extent.used for extent in info.extents if extent.kind == "journal" and extent.used > 8192
    }


def test_a_journal_that_is_closed_while_figures_are_gathered_keeps_its_used_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1, index_memory=8 * MIB) as store:
        put(store, 0, 5_000)
        before = used(store.info())
        assert len(before) == 1
        (active,) = before
        shards = store._core.shards
        rolled = []

        def figures_once_it_has_rolled() -> Any:
            if not rolled:
                number = 5_000
                while (now := shards.figures_before()[0].journal) == active:
                    put(store, number, 1_000)
                    number += 1_000
                rolled.append(now)
            return shards.figures_before()

        monkeypatch.setattr(shards, "figures_before", shards.figures, raising=False)
        monkeypatch.setattr(shards, "figures", figures_once_it_has_rolled)
        info = store.info()
        assert rolled
        assert used(info)[active] > before[active]
        assert info.journal_bytes >= 50 * info.records


def test_journals_that_are_closed_faster_than_they_are_looked_at_do_not_keep_figures_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=0, shards=1, index_memory=8 * MIB) as store:
        shards, figures, number = store._core.shards, store._core.shards.figures, 0

        def figures_once_it_has_rolled() -> Any:
            nonlocal number
            before = store._core.volume.superblock.sequence
            while store._core.volume.superblock.sequence == before:
                put(store, number, 1_000)
                number += 1_000
            return figures()

        monkeypatch.setattr(shards, "figures", figures_once_it_has_rolled)
        assert store.info().records == number
