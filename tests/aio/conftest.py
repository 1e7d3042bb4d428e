"""Where stores of these tests lie, and the medium that does what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store_faults import Faults
from store_folders import quick_temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a store can be made."""
    with quick_temporary_folder() as folder:
        yield folder / "store.silt"


@pytest.fixture
def faults() -> Faults:
    return Faults()
