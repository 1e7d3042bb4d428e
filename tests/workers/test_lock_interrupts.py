"""An interrupt in a call of the core leaves no lock held that its other threads need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from interrupts import Anywhere, ends
from store_records import assert_holds, info

import siltstone
from siltstone.errors import OutcomeUnknownError

if TYPE_CHECKING:
    from pathlib import Path


def test_an_interrupt_while_a_loss_is_taken_in(tmp_path: Path) -> None:
    with siltstone.open(tmp_path / "store.silt", workers=1) as store:
        host: Any = store._core.shards  # type: ignore[union-attr]

        def act() -> None:
            host.lost(OutcomeUnknownError("lost"))

        at = 1
        while Anywhere(at).while_(act):
            assert ends(act)
            at += 1
        assert at > 2
        with pytest.raises(OutcomeUnknownError):
            store.flush()
        store.put(info(1))
        store.flush()
        assert_holds(store, [1])
