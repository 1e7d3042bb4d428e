"""The command line: `siltstone`, or `python -m siltstone.cli`."""

from siltstone.cli.application import main

__all__ = ["main"]
