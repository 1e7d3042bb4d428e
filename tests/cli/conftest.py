"""Run the command line as a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cli_process import Outcome, finish, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def run() -> Callable[..., Outcome]:
    """Run the command line to its end."""

    def run_command(*arguments: str | bytes | Path, **options: Any) -> Outcome:
        with start(*arguments, **options) as process:
            return finish(process)

    return run_command
